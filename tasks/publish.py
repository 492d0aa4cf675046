"""`python -m tasks.publish`: the published results, made from the kept runs, or with --check held against them.

Writes results/summary.json, results/report.html, the figures that the documents show, and the tables between
`<!-- results: NAME -->` and `<!-- end -->` in README.md, docs/ and configs/sweeps/. With --check nothing is written:
everything is made anew in a folder of its own, and each difference is named.
"""

import argparse
import json
import math
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.report.analysis.intervals import Interval, mean_interval, number
from tasks.report.build import Wanted, make_report, read
from tasks.report.claims import own
from tasks.report.figures.style import Table, markdown
from tasks.report.sources.runs import ENDING, Run, keep, read_runs
from tasks.sweep.files import read_sweep
from tasks.sweep.plan import is_plan, read_plan

RESULTS, PAPERS, SWEEPS = Path("results"), Path("docs/papers.md"), Path("configs/sweeps")
SENTENCE = re.compile(r"(?<=[.?])(?<!Fig\.)(?<!\bal\.) ")
PICTURE = "golmant-fig1-classification-imageclassification-fashionmnist-val-accuracy-0-82"  # of the README
PROGRAMME = Path("docs/programme.md")
PLACES = (Path("README.md"), Path("docs/results.md"), PROGRAMME, Path("configs/sweeps/README.md"))
FIGURES = RESULTS / "figures"  # one a claim
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
LOGGED = {"momentum": 92.44, "adam": 97.89, "lars": 97.27, "lamb": 98.87}  # % on MNIST, docs/papers.md
TOLERANCE = 1e-6  # relative: another machine's arithmetic may differ in the last digits
VOLATILE = ("left_out",)


def stated() -> dict[str, tuple[str, str]]:
    """Return each claim's statement and its place, as docs/papers.md has them; the project's own have no paper."""
    rows = re.findall(r"^\| ((?:golmant|you)-\d+) \| (.*?) \| (.*?) \|$", PAPERS.read_text(), re.MULTILINE)
    papers = {claim: (statement, place) for claim, statement, place in rows}
    return papers | {claim.id: (claim.statement, claim.paper) for claim in own.CLAIMS}


def minutes(run: Run) -> float:
    """Return the minutes that a run took, evaluation and all; training alone of one that was stopped and went on."""
    begun, ended = run.record.started, run.record.ended
    if not begun or not ended or run.record.copied_from:
        return 0.0
    if run.record.resumes:
        return run.record.final["seconds"] / 60
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds() / 60


def measured(part: dict[str, Any]) -> str:
    """Return one part of a claim: what was measured, its interval and the margin."""
    ends, kind = Interval(*(float(part[name]) for name in ("effect", "low", "high"))), "premise: " * part["premise"]
    return f"{kind}{part['what']}: {number(ends)}, claimed {part['claimed']}"


def not_arrived(studies: list[str], runs: list[Run]) -> str:
    """Return how many of these studies' runs after tuning did not arrive, of those studies in which any run did."""
    ends = [(r.record.study, r.record.status) for r in runs if r.record.study in studies and r.record.stage != "tune"]
    to_a_target = {study for study, status in ends if status == "reached"}
    counted = [status for study, status in ends if study in to_a_target]
    lost = sum(status != "reached" for status in counted)
    return f"{lost} of {len(counted)}" if counted else "-"


def verdicts(content: dict[str, Any], runs: list[Run]) -> str:
    """Return the table of the claims, and which verdicts another rule for the hit would not give."""
    columns = ["id", "claim", "its place", "ours (95 % interval)", "n", "not arrived", "verdict"]
    studies = {claim["id"]: claim["studies"] for claim in content["claims"] if claim["parts"]}
    rows = [[*row[:-1], not_arrived(studies.get(row[0], []), runs), row[-1]] for row in verdict_rows(content)]
    other: dict[tuple[str, str], list[str]] = {}
    for claim in content["claims"]:
        for check in claim["robustness"]:
            if check["verdict"] != claim["verdict"]:
                other.setdefault((check["row"], check["verdict"]), []).append(claim["id"])
    notes = [f"With the {row}, {verdict}: {', '.join(names)}." for (row, verdict), names in other.items()]
    return table(columns, rows) + "".join(f"\n{note}\n" for note in notes)


def verdict_rows(content: dict[str, Any]) -> list[list[str]]:
    """Return one row a claim, in the order of the papers."""
    said, found = stated(), {claim["id"]: claim for claim in content["claims"]}
    rows = []
    for name, (statement, place) in said.items():
        claim = found.get(name)
        verdict = claim["label"] if claim else "not tested"
        reason = claim["reason"] if claim else "no study in the programme"
        ours = "<br>".join(map(measured, claim["parts"])) if claim and claim["parts"] else reason
        rows.append([name, statement, place, ours, str(claim["n"]) if claim else "0", verdict])
    return rows


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a table as Markdown."""
    return markdown(Table("", columns, rows)) + "\n"


def time_taken(runs: list[Run]) -> dict[str, tuple[int, float]]:
    """Return the number of runs of each study, and the minutes of one worker that they took."""
    took: dict[str, tuple[int, float]] = {}
    for run in runs:
        count, spent = took.get(run.record.study, (0, 0.0))
        took[run.record.study] = count + 1, spent + minutes(run)
    return took


def studies_table(runs: list[Run], took: Mapping[str, tuple[int, float]]) -> str:
    """Return the studies with their runs and what they took."""
    ends = {s: Counter(r.record.status for r in runs if r.record.study == s) for s in took}
    rows = [
        [name, str(count), ", ".join(f"{n} {status}" for status, n in ends[name].most_common()), f"{spent:.0f}"]
        for name, (count, spent) in took.items()
    ]
    rows.append(["all", str(len(runs)), "", f"{sum(spent for _, spent in took.values()):.0f}"])
    return table(["study", "runs", "how they ended", "minutes of one worker"], rows)


def whole_batch(runs: list[Run]) -> str:
    """Return what each optimizer came to with all of Fashion-MNIST in one batch, beside what an author logged."""
    rows = []
    for name, logged in LOGGED.items():
        fresh = [r.record for r in runs if (r.record.study, r.record.stage) == (f"you_whole_{name}", "confirm")]
        if fresh:
            reached = mean_interval([100 * (record.test or {})["test/accuracy"] for record in fresh])
            rates = ", ".join(sorted({f"{record.rate.base:.3g}" for record in fresh}))
            rows.append([fresh[0].optimizer.name, rates, str(len(fresh)), number(reached), f"{logged:g}"])
    columns = ["optimizer", "rate", "seeds", "test accuracy on Fashion-MNIST (%)", "logged on MNIST, at best (%)"]
    return table(columns, rows)


def sweep_files() -> dict[str, list[Path]]:
    """Return the sweep files of every study, by its folder."""
    files: dict[str, list[Path]] = {}
    for path in sorted(SWEEPS.glob("*/*.yaml")):
        if not is_plan(path):
            files.setdefault(path.parent.name, []).append(path)
    return files


def question(path: Path) -> str:
    """Return the first sentence of a sweep file's first comment."""
    comment = path.read_text().split("\nprogram:")[0].splitlines()
    return SENTENCE.split(" ".join(line.removeprefix("#").strip() for line in comment))[0]


def claim_order(claim: str) -> tuple[str, int]:
    """Return what puts golmant-2 before golmant-10."""
    paper, number = claim.rsplit("-", 1)
    return paper, int(number)


def index(content: dict[str, Any], took: Mapping[str, tuple[int, float]]) -> list[list[str]]:
    """Return a row a study; `took` has the kept runs of a study and the minutes of one worker that they took.

    Its claims are those that its runs were used for, or where none were, those that its plans name.
    """
    rows = []
    for study, paths in sweep_files().items():
        sweeps = [read_sweep(path) for path in paths]
        plans = [plan for plan in map(read_plan, sweeps) if plan]
        planned = sorted({claim for plan in plans for claim in plan.margins}, key=claim_order)
        claims = [c["id"] for c in content["claims"] if study in c["studies"] and c["parts"]] or planned
        grids = [f"[{s.path.stem}]({study}/{s.path.name}) {len(s.choices()):,}" for s in sweeps]
        runs, minutes = took.get(study, (0, 0.0))
        measured = f"{runs:,} runs, {minutes:.0f} min" if runs else "-"
        rows.append([study, question(paths[0]), ", ".join(claims) or "-", ", ".join(grids), measured])
    return rows


def studies_index(content: dict[str, Any], took: Mapping[str, tuple[int, float]]) -> str:
    """Return the table of configs/sweeps/README.md."""
    return table(["study", "what it asks", "claims", "grid", "measured"], index(content, took))


def head(content: dict[str, Any]) -> str:
    """Return the counts of verdicts and the claims that are decided, for the README."""
    rows = verdict_rows(content)
    counts = Counter(row[-1] for row in rows)
    shown = ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
    decided = [[row[0], row[1], row[-1]] for row in rows if " on " in row[-1]]
    return f"Of {len(rows)} claims: {shown}.\n\n" + table(["id", "claim", "verdict"], decided)


def answers(content: dict[str, Any]) -> str:
    """Return the answer of every workload of which enough batch sizes arrived, in a sentence, and count the others."""
    given = [answer for answer in content["answers"] if answer["answered"]]
    rest = len(content["answers"]) - len(given)
    others = f"{rest} other curves have too few batch sizes for such a sentence, most of them by design.\n"
    lines = [f"- *{answer['workload'].split(':')[0]}*: {answer['answer']}\n" for answer in given]
    return "".join(lines) + f"\n{others}"


def evidence(content: dict[str, Any], took: Mapping[str, tuple[int, float]]) -> str:
    """Return for every claim that was tested its figure, its kept runs, what they took and the command for them."""
    lines = []
    for claim in content["claims"]:
        studies = [name for name in claim["studies"] if name in took]
        if claim["parts"]:
            runs, spent = (sum(took[name][i] for name in studies) for i in (0, 1))
            kept = ", ".join(f"[{name}](../{RESULTS}/{name}{ENDING})" for name in studies)
            line = f"- **{claim['id']}**: [figure](../{drawn(claim['id'])}); runs: {kept}; {runs:,.0f} runs took "
            lines.append(f"{line}{spent:.0f} minutes; again: `{claim['rerun'].split(' && ')[0]}`\n")
    return "".join(lines)


def predicted(content: dict[str, Any], took: Mapping[str, tuple[int, float]]) -> str:
    """Return what docs/programme.md expected of each row of its tables, beside what came out and what it took."""
    found, rows, sums = {claim["id"]: claim for claim in content["claims"]}, [], [0.0, 0.0]
    tables = PROGRAMME.read_text().split("<!-- results")[0]
    for line in re.findall(r"^\| (\(?(?:golmant|you|own|shown)\b.*) \|$", tables, re.MULTILINE):
        cells = line.split(" | ")
        if len(cells) != 7:
            continue
        names = re.sub(r", -(?=\d)", f", {cells[0].split('-')[0]}-", cells[0]).split(", ")
        came = ", ".join(dict.fromkeys(found[name]["label"] for name in names if name in found)) or "-"
        said = " ".join(re.findall(r"\*\*(.*?)\*\*", cells[6])) or "no expectation"
        studies = [s for s in took if re.search(rf"\b{s.split('_', 1)[1]}\b", cells[3])]
        runs, spent = (sum(took[study][i] for study in studies) for i in (0, 1))
        sums = [sums[0] + runs, sums[1] + spent]
        rows.append([cells[0], said, came, cells[4], f"{runs:.0f}", cells[5], f"{spent:.0f}"])
    rows.append(["sum", "", "", "", f"{sums[0]:,.0f}", "", f"{sums[1]:,.0f}"])
    columns = ["claim", "expected, and its power", "came out", "runs", "taken", "CPU-min", "minutes taken"]
    return table(columns, rows)


def drawn(claim: str) -> Path:
    """Return the published figure of a claim."""
    return FIGURES / f"claim-{claim}.svg"


def blocks(content: dict[str, Any], runs: list[Run]) -> dict[str, str]:
    """Return the generated text of each block, by name."""
    took = time_taken(runs)
    return {
        "verdicts": verdicts(content, runs),
        "studies": studies_table(runs, took),
        "head": head(content),
        "answers": answers(content),
        "evidence": evidence(content, took),
        "index": studies_index(content, took),
        "predicted": predicted(content, took),
        "whole": whole_batch(runs),
    }


def filled(text: str, made: dict[str, str]) -> str:
    """Return a document with its blocks filled."""
    return BLOCK.sub(lambda m: m[1] + made[m[2]] + m[3], text)


def differences(kept: object, made: object, path: str = "") -> Iterator[str]:
    """Name where two summaries differ."""
    if isinstance(kept, dict) and isinstance(made, dict):
        for key in dict.fromkeys([*kept, *made]):
            if key not in kept or key not in made:
                yield f"{path}.{key} is only in one"
            elif key not in VOLATILE:
                yield from differences(kept[key], made[key], f"{path}.{key}")
    elif isinstance(kept, list) and isinstance(made, list) and len(kept) == len(made):
        for i, (a, b) in enumerate(zip(kept, made, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif isinstance(kept, float) and isinstance(made, float):
        if not math.isclose(kept, made, rel_tol=TOLERANCE, abs_tol=1e-12):
            yield f"{path}: {kept} kept, {made} made"
    elif kept != made:
        yield f"{path}: {kept!r} kept, {made!r} made"[:300]


def alike(kept: Path, made: Path) -> bool:
    """Return whether two figures say the same: words exactly, places to a fifth of a point, as machines round."""
    words, places = [], []
    for text in (file.read_text() for file in (kept, made)):
        split = re.split(r"(-?\d+(?:\.\d+)?)", " ".join(re.findall(r"<[^>]*>", text)))
        words.append((re.split(r"<[^>]*>", text), split[::2]))
        places.append(list(map(float, split[1::2])))
    return words[0] == words[1] and all(abs(a - b) <= 0.2 for a, b in zip(*places, strict=True))


def sources() -> list[Path]:
    """Return the kept studies. Raises ValueError where there are none."""
    found = sorted(RESULTS.glob("*.jsonl.xz"))
    if not found:
        raise ValueError(
            f"{RESULTS} holds no kept study (.jsonl.xz): keep some with `python -m tasks.publish --keep RUNS`"
        )
    return found


def make(out: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Make the report of the kept runs in `out`; return its summary and the generated blocks."""
    wanted = Wanted(sources(), out, command="python -m tasks report results/*.jsonl.xz", lies_in=RESULTS)
    analysis = read(wanted)
    make_report(wanted, analysis)
    content = json.loads((out / "summary.json").read_text())
    return content, blocks(content, analysis.runs)


def keep_studies(folder: Path) -> int:
    """Keep every study of a folder of runs whose runs have all ended."""
    RESULTS.mkdir(exist_ok=True)
    for study in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        runs, left_out = read_runs(study)
        going_on = [run for run in runs if run.record.status == "running"]
        if going_on or left_out or not runs:
            print(f"{study.name}: not kept, {len(going_on)} still running, {len(left_out)} unusable", file=sys.stderr)
            continue
        keep(runs, RESULTS / f"{study.name}{ENDING}")
    return 0


def publish(out: Path) -> int:
    """Write what is published."""
    content, made = make(out)
    (RESULTS / "summary.json").write_text(json.dumps(content, indent=1) + "\n")
    shutil.copy(out / "report.html", RESULTS / "report.html")
    shutil.copy(out / "figures" / f"{PICTURE}.svg", RESULTS / "steps.svg")
    shutil.rmtree(FIGURES, ignore_errors=True)
    FIGURES.mkdir()
    for file in out.glob("figures/claim-*.svg"):
        shutil.copy(file, FIGURES)
    for place in PLACES:
        place.write_text(filled(place.read_text(), made))
    return 0


def check(out: Path) -> int:
    """Name every difference between what is published and what the kept runs give."""
    content, made = make(out)
    wrong = list(differences(json.loads((RESULTS / "summary.json").read_text()), content, "results/summary.json"))
    wrong += [
        f"{place} differs from its runs: run `make publish`"
        for place in PLACES
        if filled(place.read_text(), made) != place.read_text()
    ]
    made_figures, kept_figures = ({f.name: f for f in d.glob("claim-*.svg")} for d in (out / "figures", FIGURES))
    wrong += [f"{FIGURES}/{name} is only in one" for name in sorted(made_figures.keys() ^ kept_figures.keys())]
    pairs = [(kept_figures[name], file) for name, file in made_figures.items() if name in kept_figures]
    pairs.append((RESULTS / "steps.svg", out / "figures" / f"{PICTURE}.svg"))
    wrong += [f"{kept} differs from its runs: run `make publish`" for kept, file in pairs if not alike(kept, file)]
    for line in wrong[:40]:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"verified: {len(content['claims'])} verdicts and {len(content['workloads'])} curves")
    return int(bool(wrong))


def main(argv: list[str] | None = None) -> int:
    """Publish, or with --check verify."""
    words = argparse.ArgumentParser(prog="python -m tasks.publish", description=__doc__)
    words.add_argument("--check", action="store_true", help="write nothing, name every difference")
    words.add_argument("--keep", type=Path, metavar="RUNS", help="first keep the ended studies of this folder")
    options = words.parse_args(argv)
    if options.keep:
        keep_studies(options.keep)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return (check if options.check else publish)(Path(folder))
        except (ValueError, OSError) as error:
            print(f"publish: {error}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
