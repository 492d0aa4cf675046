"""Rule 22's known answer through the real road: `python -m tests.helpers.known_answer FOLDER --studies 100`.

Each study is a noisy quadratic model, tuned at every batch size by `python -m tasks sweep` and judged by
`python -m tasks report`. The same command goes on where it was cut off.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import yaml

from tasks.report.analysis.intervals import proportion
from tests.helpers import quadratic_model
from tests.helpers.quadratic_model import known_b2

ROOT = Path(__file__).parents[2]
AT_ONCE = 5  # studies in one sweep, which asks all of its files anew after each run
CONFIG = {
    "model": {
        "class_path": "tests.helpers.quadratic_task.Quadratic",
        "init_args": {
            "network": {"class_path": "tests.helpers.quadratic_task.Valley"},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        },
    },
    "data": {"class_path": "tests.helpers.quadratic_task.Noise", "init_args": {"batch_size": 1}},
    "trainer": {"accelerator": "cpu"},
}


def name_of(study: int) -> str:
    """Name a study's folder of runs."""
    return f"quadratic{study:03}"


def write_sweep(folder: Path, study: int) -> Path:
    """Write one study, all batch sizes tuned and confirmed; no two studies have a seed in common."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    sizes, rate = quadratic_model.SIZES, "model.optimizer.init_args.lr"
    steps = max(quadratic_model.tuned(size)[0] for size in sizes)
    tune, confirm = ([100 * study + s for s in seeds] for seeds in (quadratic_model.TUNING, quadratic_model.FRESH))
    values = {
        "run.study": [name_of(study)],
        "data.batch_size": sizes,
        "seed_everything": [tune[0]],
        rate: [float(f"{r:.4g}") for r in quadratic_model.coarse_rates(random.Random(study).random() - 0.5)],
        "convergence.targets": [f"[{{metric: val/loss, direction: min, value: {quadratic_model.GOAL}}}]"],
        "convergence.budget_steps": [int(4 * steps)],
        "convergence.budget_examples": [int(4 * steps)],
    }
    command = ["${interpreter}", "-m", "tasks", "fit", "--config", str(folder / "config.yaml"), "${args}"]
    parameters = {name: {"values": given} for name, given in values.items()}
    sweep = {"program": "tasks/__main__.py", "method": "grid", "command": command, "parameters": parameters}
    plan = {"learning_rate": rate, "tune": {"seeds": tune}, "confirm": {"seeds": confirm}}
    file = folder / f"{study:03}.yaml"
    file.write_text(yaml.safe_dump(sweep))
    file.with_name(f"{file.stem}.plan.yaml").write_text(yaml.safe_dump(plan))
    return file


def tasks(*command: object) -> None:
    """Run `python -m tasks ...`, one thread a process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "tasks", *map(str, command)], cwd=ROOT, env=environment, check=True)


def train(folder: Path, studies: range, workers: int) -> None:
    """Run the studies that are not finished."""
    for first in studies[::AT_ONCE]:
        some = studies[studies.index(first) :][:AT_ONCE]
        files = [write_sweep(folder / "sweeps", study) for study in some]
        tasks("sweep", *files, "--runs", folder / "runs", "--workers", workers)


def judge(folder: Path, studies: range) -> list[dict]:
    """Make the report of these studies; give its summary's workloads."""
    runs = [folder / "runs" / name_of(study) for study in studies]
    tasks("report", *runs, "--out", folder / "report")
    return json.loads((folder / "report" / "summary.json").read_text())["workloads"]


@dataclass(frozen=True)
class Answers:
    """What the report said of the studies, beside what is known."""

    ratios: list[float]  # of the estimated to the known B2
    covered: int  # by the 95 % interval
    identified: int

    @property
    def holds(self) -> bool:
        """Say whether rule 22 holds: within 10 %, and covered in at least 93 of 100."""
        return abs(median(self.ratios) - 1) <= 0.1 and self.covered >= 0.93 * len(self.ratios)

    def __str__(self) -> str:
        n, ratios = len(self.ratios), self.ratios
        spread = f"median {median(ratios):.3f}, {min(ratios):.2f} to {max(ratios):.2f}"
        shares = f"held in {said(self.covered, n)}; identified in {said(self.identified, n)}"
        return f"B2 is {known_b2():.1f}; estimates over it: {spread}; {shares}"


def said(hits: int, n: int) -> str:
    """Return a share with its exact 95 % interval, in words."""
    share = proportion(hits, n)
    return f"{hits} of {n} studies ({share.value:.1%} [{share.low:.1%}, {share.high:.1%}])"


def answers(workloads: list[dict]) -> Answers:
    """Hold the report's B2 against the known one."""
    found = [workload["critical_batch_size"] for workload in workloads]
    b2 = known_b2()
    covered = sum(float(c["low"]) <= b2 <= float(c["high"]) for c in found)
    return Answers([float(c["estimate"]) / b2 for c in found], covered, sum(c["identified"] for c in found))


def main() -> int:
    """Train and judge; 1 where rule 22 does not hold."""
    words = argparse.ArgumentParser(prog="python -m tests.helpers.known_answer", description=__doc__)
    words.add_argument("folder", type=Path)
    words.add_argument("--studies", type=int, default=100)
    words.add_argument("--workers", type=int, default=1)
    options = words.parse_args()
    folder, studies = options.folder.absolute(), range(options.studies)
    train(folder, studies, options.workers)
    found = answers(judge(folder, studies))
    print(found)
    return int(not found.holds)


if __name__ == "__main__":
    sys.exit(main())
