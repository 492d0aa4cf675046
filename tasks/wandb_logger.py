"""W&B as a mirror of the run directory: it never decides whether a run works."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from callbacks.record import Record, read_record
from callbacks.run_record import outcome
from tasks.sweep.fleet import kept_files
from tasks.wandb_mode import choose_mode, mode_message

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

INIT_TIMEOUT, FINISH_TIMEOUT = "30", "15"  # seconds; wandb's own defaults block for minutes, or for ever
STARTS = 4  # times that W&B may give a sweep's cell that does not end well to an agent


class RunWandbLogger(WandbLogger):
    """WandbLogger that goes offline, with one line saying so, where it cannot go online.

    Args:
        project: the W&B project.
        entity: the team or user (null: the key's default).
        save_dir: where W&B's own files go.
        tags: to filter by.
    """

    def __init__(
        self,
        project: str = "batch-limit",
        entity: str | None = None,
        save_dir: str = "runs",
        tags: list[str] | None = None,
    ) -> None:
        os.environ.setdefault("WANDB_INIT_TIMEOUT", INIT_TIMEOUT)
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", FINISH_TIMEOUT)
        os.environ.setdefault("WANDB_SILENT", "true")
        os.makedirs(save_dir, exist_ok=True)
        self._mode, why = choose_mode()
        self._requeue = False
        self._rows_logged = self._received = 0  # rows of this process, and those that W&B had before
        super().__init__(project=project, save_dir=save_dir, mode=self._mode, tags=tags, entity=entity)
        del self._wandb_init["anonymous"]  # wandb warns of it, whatever its value
        if "WANDB_SWEEP_ID" in os.environ:  # the agent owns these, and wandb warns
            del self._wandb_init["project"], self._wandb_init["entity"]
        rank_zero_only(print)(mode_message(self._mode, why, save_dir), file=sys.stderr)

    @property
    def experiment(self) -> "Run":
        """Return the W&B run; where the server does not answer, an offline one."""
        new = self._experiment is None
        try:
            run = super().experiment
        except Exception as error:  # wandb raises many kinds; none may end a training run
            if self._wandb_init["mode"] == "offline":
                raise
            print(f"W&B goes offline, its server cannot be used: {error}", file=sys.stderr)
            self._wandb_init["mode"] = os.environ["WANDB_MODE"] = "offline"
            import wandb

            wandb.teardown()  # else its service still holds the run's id
            run = super().experiment
        if new:
            self._received = rows_offline(run) if self._wandb_init["mode"] == "offline" else run.step
        if new and self._requeue:
            run.mark_preempting()  # should this process die, W&B gives the cell to an agent again
        return run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a row, unless W&B has it: a resumed run logs all its rows again, in the same order."""
        run, number = self.experiment, self._rows_logged
        self._rows_logged += 1
        if number >= self._received:
            run.log({**metrics, "trainer/global_step": step}, step=number, commit=True)

    @rank_zero_only
    def summarize(self, facts: Mapping[str, Any], directory: Path) -> None:
        """Show how the run ended in its summary and, to filter by, in its config; a sweep's keeps its record too."""
        kept = kept_files(directory) if "WANDB_SWEEP_ID" in os.environ else {}
        self.experiment.summary.update({**facts, **kept})
        self.experiment.config.update(dict(facts), allow_val_change=True)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """End the W&B run, so that another run of this process begins its own."""
        if self._experiment is not None:
            run = self._experiment
            run.finish()
            if run._finish_timed_out:
                kept = Path(run.dir).parent
                said = f"W&B's server stopped answering: the rest is kept, `wandb sync {kept}` uploads it"
                print(said, file=sys.stderr)

    def name_run(self, directory: Path, arm: str = "", stage: str | None = None) -> None:
        """Name the W&B run after its arm and directory; its id stays there for a resumed run."""
        study = directory.parent.name
        tags = [*(self._wandb_init.get("tags") or []), study[:64], *([stage] if stage else [])]
        self._wandb_init |= {"name": f"{arm} {directory.name}".strip(), "group": study, "tags": tags}
        kept = directory / "wandb_id.txt"
        if "WANDB_RUN_ID" not in os.environ:  # an agent gives it, and keeps it when it runs the cell again
            if not kept.exists():
                kept.write_text(secrets.token_hex(4))
            self._wandb_init |= {"id": kept.read_text(), "resume": "allow"}
        starts = directory / "wandb_starts.txt"
        count = 1 + (int(starts.read_text()) if starts.exists() else 0)
        starts.write_text(str(count))
        self._requeue = "WANDB_SWEEP_ID" in os.environ and count < STARTS


def arm_and_stage(settings: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the optimizer with its rate, and the stage of the plan."""
    chosen = settings["model"]["init_args"]["optimizer"]
    rate, plan = chosen.get("init_args", {}).get("lr"), settings["run"]["plan"] or {}
    name = chosen["class_path"].rpartition(".")[2]
    return name if rate is None else f"{name} {rate:g}", plan.get("stage")


def mirror_again(directory: Path) -> None:
    """Tell W&B how a run ended whose own process died before it could."""
    import wandb

    record = read_record(directory / "record.json")
    if isinstance(record, Record):
        with wandb.init() as run:
            run.summary.update({**outcome(record), **kept_files(directory)})


def rows_offline(run: "Run") -> int:
    """Return how many whole rows earlier processes of an offline run left in its files."""
    numbers = [-1]
    for path in Path(run.dir).parent.parent.glob(f"offline-run-*-{run.id}/*.wandb"):
        reader = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        lines = subprocess.run(reader, capture_output=True, text=True, check=False).stdout.splitlines()
        rows = (json.loads(line)["history"] for line in lines if '"type":"history"' in line)
        numbers += [int(row["step"]["num"]) for row in rows]
    return max(numbers) + 1
