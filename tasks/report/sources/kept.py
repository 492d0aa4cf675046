"""Kept studies: many runs in one compressed file, a line of JSON a run, {"record": ..., "curve": {column: values}}."""

import json
import lzma
import math
from pathlib import Path

from callbacks.record import from_fields, to_json
from tasks.report.sources.runs import Found, Run, UnusableError, hits_of, usable

ENDING = ".jsonl.xz"


def keep(runs: list[Run], path: Path) -> None:
    """Write runs to one file: the same runs give the same bytes, in whatever order and wherever they lie."""
    lines = [
        json.dumps(
            {"record": json.loads(to_json(run.record)), "curve": {k: plain(v) for k, v in run.curve.items()}},
            separators=(",", ":"),
            allow_nan=False,
        )
        for run in sorted(runs, key=lambda run: (run.record.study, run.record.run))
    ]
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9))
    part.replace(path)


def plain(values: list[float]) -> list:
    """Return numbers as JSON can hold them: whole ones short, those that are not finite as text."""
    return [str(v) if not math.isfinite(v) else int(v) if v == int(v) and abs(v) < 2**53 else v for v in values]


def read_kept(source: Path) -> Found:
    """Return the runs of a kept file, and the lines that are none with the reason."""
    try:
        lines = lzma.decompress(source.read_bytes()).decode().splitlines()
    except (lzma.LZMAError, UnicodeDecodeError, EOFError) as error:
        return [], [(str(source), f"no whole file of kept runs ({error})")]
    runs, left_out = [], []
    for i, line in enumerate(lines):
        try:
            runs.append(kept_run(source, line))
        except UnusableError as reason:
            left_out.append((f"{source}: line {i + 1}", str(reason)))
    return runs, left_out


def kept_run(source: Path, line: str) -> Run:
    """Return the run of one line. Raises UnusableError."""
    try:
        fields = json.loads(line)
        curve = {name: [float(v) for v in values] for name, values in fields["curve"].items()}
        fields = fields["record"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UnusableError(f"not a kept run ({type(error).__name__}: {error})") from None
    if len({len(values) for values in curve.values()}) > 1:
        raise UnusableError("its curve has columns of different lengths")
    record = usable(from_fields(fields))
    return Run(f"{source}: {record.study}/{record.run}", record, hits_of(record), curve_given=curve)
