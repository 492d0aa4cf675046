"""The report as a W&B artifact: its pages, tables and figures, in one run of type `report`."""

import csv
import os
from pathlib import Path

from tasks.wandb_mode import choose_mode, told

PROJECT = "batch-limit"
INIT_TIMEOUT, FINISH_TIMEOUT = "30", "60"  # seconds; wandb's own defaults block for minutes


def log_report(out: Path, studies: list[str]) -> str:
    """Log what `out` holds; give a line that says where it went.

    Under WANDB_SWEEP_ID the run belongs to that sweep; WANDB_PROJECT names the project.
    """
    import wandb

    os.environ.setdefault("WANDB_INIT_TIMEOUT", INIT_TIMEOUT)
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", FINISH_TIMEOUT)
    os.environ.setdefault("WANDB_SILENT", "true")
    mode, why = choose_mode()
    options = {"project": os.environ.get("WANDB_PROJECT", PROJECT), "job_type": "report", "name": "report"}
    options |= {"config": {"studies": studies}, "dir": str(out)}
    try:
        run = wandb.init(mode=mode, **options)
    except wandb.errors.Error as error:  # the report is written already: a broken server may not lose it
        mode, why = "offline", f"its server cannot be used: {error}"
        run = wandb.init(mode=mode, **options)
    artifact = wandb.Artifact("batch-size-report", type="report", metadata={"studies": studies})
    for name in ("report.html", "report.md", "summary.json"):
        artifact.add_file(str(out / name))
    for folder in ("figures", "tables"):
        artifact.add_dir(str(out / folder), name=folder)
    run.log_artifact(artifact)
    run.log({f"figures/{f.stem}": wandb.Image(str(f)) for f in sorted(out.glob("figures/*.png"))})
    run.log({f"tables/{f.stem}": table(f) for f in sorted(out.glob("tables/*.csv"))})
    run.finish()
    return told(mode, why, str(out))


def table(file: Path):
    """Read a CSV table for W&B, as text."""
    import wandb

    with open(file, newline="") as rows:
        header, *data = csv.reader(rows)
    return wandb.Table(columns=header, data=data)
