"""`python -m tasks report SOURCE... --out DIR`: from runs to a page, figures, tables and JSON."""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from tasks.wandb_mode import choose_mode, mode_message

ENVIRONMENT = {"WANDB_INIT_TIMEOUT": "30", "WANDB_FINISH_TIMEOUT": "60", "WANDB_SILENT": "true"}  # not minutes
HELP = {
    "--target": "choose targets again from the curves: 'val/accuracy>=0.8', 'trainset/loss<=0.5', "
    "'trainset/loss:golmant', 'val/accuracy:baseline=0.95' (repeatable)",
    "--figure": "draw only this figure: golmant-1 to golmant-5, you-optimizers, you-recipe, you-diffusion, "
    "time-and-cost, noise-scale, noise-along, curvature, cost (repeatable)",
    "--examples-per-epoch": "the examples in an epoch of an MLPerf benchmark, for absolute steps; the batch scale "
    "needs no number (repeatable)",
    "--cluster": "the machine to project time and cost on: YAML such as configs/cluster/ethernet.yaml",
    "--keep": "also write the runs to one small file (.jsonl.xz)",
}
SOURCE = (
    "a folder of runs, a file of kept runs (.jsonl.xz), an MLPerf reference file (.json), a W&B export (.csv, .json), "
    "or a table (.csv) with the columns batch_size, seed, status, and steps or examples (also learning_rate, stage, "
    "target, network, optimizer)"
)
WANDB = "also log pages, tables and figures as a W&B artifact (of the sweep in WANDB_SWEEP_ID, if set)"


def epoch(text: str) -> tuple[str, int]:
    """Return NAME=N as a name and a number."""
    name, _, size = text.rpartition("=")
    if not name or not size.isdigit() or int(size) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not understood; give NAME=N, as in resnet=1281167")
    return name, int(size)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    words = argparse.ArgumentParser(prog="python -m tasks report", description=__doc__)
    words.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help=SOURCE)
    words.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    for name in ("--target", "--figure"):
        words.add_argument(name, action="append", default=[], help=HELP[name])
    name = "--examples-per-epoch"
    words.add_argument(name, action="append", default=[], type=epoch, metavar="NAME=N", help=HELP[name])
    for name in ("--cluster", "--keep"):
        words.add_argument(name, type=Path, metavar="FILE", help=HELP[name])
    words.add_argument("--wandb", action="store_true", help=WANDB)
    return words


def main(argv: list[str] | None = None) -> int:
    """Make the report; return the exit status."""
    given = parser().parse_args(argv)
    # Here and not above: the libraries are slow to import, and --help should not wait for them.
    from tasks.report.build import Wanted, make_figures, make_report

    command = shlex.join(["python", "-m", "tasks", "report", *(sys.argv[2:] if argv is None else argv)])
    try:
        asked = (given.target, given.figure, given.cluster, given.keep, command, given.examples_per_epoch)
        wanted = Wanted(given.sources, given.out, *asked)
        text = make_figures(wanted) if given.figure else make_report(wanted)
        print(f"{log_report(given.out)}\n\n{text}" if given.wandb and not given.figure else text)
    except OSError as error:
        mend = ": give another --out" if str(error.filename).startswith(str(given.out)) else ""
        print(f"report: {str(error.filename)[:200]}: {error.strerror}{mend}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


def log_report(out: Path) -> str:
    """Log pages, tables and figures as a W&B artifact, in one run of type `report`; return a line that says where.

    Under WANDB_SWEEP_ID the run belongs to that sweep; WANDB_PROJECT names the project.
    """
    import wandb

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    mode, why = choose_mode()
    studies = sorted({w["name"].split(":")[0] for w in json.loads((out / "summary.json").read_text())["workloads"]})
    options: dict[str, Any] = {"job_type": "report", "name": "report", "config": {"studies": studies}, "dir": str(out)}
    options["project"] = os.environ.get("WANDB_PROJECT", "batch-limit")
    try:
        run = wandb.init(**options)
    except wandb.errors.Error as error:  # the report is written already: a broken server may not lose it
        mode, why = "offline", f"its server cannot be used: {error}"
        run = wandb.init(**options, mode="offline")
    artifact = wandb.Artifact("batch-size-report", type="report", metadata={"studies": studies})
    for name in ("report.html", "report.md", "summary.json"):
        artifact.add_file(str(out / name))
    for folder in ("figures", "tables"):
        artifact.add_dir(str(out / folder), name=folder)
    run.log_artifact(artifact)
    run.log({f"figures/{f.stem}": wandb.Image(str(f)) for f in sorted(out.glob("figures/*.png"))})
    run.finish()
    return mode_message(mode, why, str(out))
