"""W&B as a mirror of the run directory: it never decides whether a run works."""

import os
import secrets
import sys
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from tasks.wandb_mode import choose_mode

INIT_TIMEOUT, FINISH_TIMEOUT = "30", "60"  # seconds; wandb's own defaults block for minutes


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
        in_sweep = "WANDB_SWEEP_ID" in os.environ  # the agent owns project, entity and id
        owned = {} if in_sweep else {"entity": entity}
        super().__init__(project=None if in_sweep else project, save_dir=save_dir, mode=self._mode, tags=tags, **owned)
        print(f"W&B is {self._mode}: {why}", file=sys.stderr)

    @property
    def experiment(self) -> Any:
        """The W&B run; where the server does not answer, an offline one."""
        try:
            return super().experiment
        except Exception as error:  # wandb raises many kinds; none may end a training run
            if self._wandb_init["mode"] == "offline":
                raise
            print(f"W&B goes offline, its server cannot be used: {error}", file=sys.stderr)
            self._wandb_init["mode"] = os.environ["WANDB_MODE"] = "offline"
            return super().experiment

    def name_run(self, directory: Path) -> None:
        """Give the W&B run the run directory's name and, so that a resumed run keeps it, an id that stays there."""
        self._wandb_init |= {"name": directory.name, "group": directory.parent.name}
        kept = directory / "wandb_id.txt"
        if "WANDB_RUN_ID" not in os.environ:  # an agent gives it, and keeps it when it runs the cell again
            if not kept.exists():
                kept.write_text(secrets.token_hex(4))
            self._wandb_init |= {"id": kept.read_text(), "resume": "allow"}
