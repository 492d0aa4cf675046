"""`python -m tasks report SOURCE... --out DIR`: from runs to a page, figures, tables and JSON."""

import argparse
import json
import shlex
import sys
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    words = argparse.ArgumentParser(prog="python -m tasks report", description=__doc__)
    words.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="a folder of runs, a file of kept runs (.jsonl.xz), an MLPerf reference file (.json), a W&B export (.csv, "
        ".json), or a table (.csv) with the columns batch_size, seed, status, and steps or examples (also "
        "learning_rate, stage, target)",
    )
    words.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    words.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="TARGET",
        help="choose targets again from the curves: 'val/accuracy>=0.8', 'trainset/loss<=0.5', "
        "'trainset/loss:golmant', 'val/accuracy:quantile=0.5', 'val/accuracy:baseline=0.95' (repeatable)",
    )
    words.add_argument(
        "--figure",
        action="append",
        default=[],
        metavar="NAME",
        help="draw only this figure: golmant-1 to golmant-5, you-optimizers, you-recipe, you-diffusion, "
        "time-and-cost, noise-scale, noise-along, curvature, cost (repeatable)",
    )
    words.add_argument(
        "--cluster",
        type=Path,
        metavar="FILE",
        help="the machine to project time and cost on: YAML such as configs/cluster/ethernet.yaml",
    )
    words.add_argument(
        "--examples-per-epoch",
        action="append",
        default=[],
        metavar="NAME=N",
        help="the examples in an epoch of an MLPerf benchmark, for absolute steps; the batch scale needs no number",
    )
    words.add_argument("--keep", type=Path, metavar="FILE.jsonl.xz", help="also write the runs to one small file")
    words.add_argument(
        "--wandb",
        action="store_true",
        help="also log pages, tables and figures as a W&B artifact (of the sweep in WANDB_SWEEP_ID, if set)",
    )
    return words


def epochs_of(texts: list[str]) -> dict[str, int]:
    """Return NAME=N as numbers. Raises ValueError."""
    found = {}
    for text in texts:
        name, _, size = text.rpartition("=")
        if not name or not size.isdigit() or int(size) < 1:
            raise ValueError(f"--examples-per-epoch {text!r} is not understood; give NAME=N, as in resnet=1281167.")
        found[name] = int(size)
    return found


def main(argv: list[str] | None = None) -> int:
    """Make the report; return the exit status."""
    options = parser().parse_args(argv)
    # Here and not above: the libraries are slow to import, and --help should not wait for them.
    from tasks.report.build import Wanted, make_figures, make_report

    command = shlex.join(["python", "-m", "tasks", "report", *(sys.argv[2:] if argv is None else argv)])
    try:
        wanted = Wanted(
            options.sources,
            options.out,
            options.target,
            options.figure,
            options.cluster,
            epochs_of(options.examples_per_epoch),
            options.keep,
            command,
        )
        text = make_figures(wanted) if options.figure else make_report(wanted)
        print(wandb_line(options.out) + text if options.wandb and not options.figure else text)
    except (ValueError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


def wandb_line(out: Path) -> str:
    """Log the report to W&B; return the line that says so."""
    from tasks.report.render.wandb import log_report

    names = {w["name"].split(":")[0] for w in json.loads((out / "summary.json").read_text())["workloads"]}
    return log_report(out, sorted(names)) + "\n\n"
