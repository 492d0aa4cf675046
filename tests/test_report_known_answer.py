"""A model whose critical batch size is known by analysis, through the real sweep, fits and report (rule 22)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tasks.report.fits import size_at
from tests import noisy_quadratic

ROOT = Path(__file__).parents[1]
SIZES = [16, 32, 64, 128, 256, 512, 1024]
CONFIG = {
    "model": {
        "class_path": "tests.quadratic_task.Quadratic",
        "init_args": {
            "network": {"class_path": "tests.quadratic_task.Valley"},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        },
    },
    "data": {"class_path": "tests.quadratic_task.Noise", "init_args": {"batch_size": 16}},
    "trainer": {"accelerator": "cpu"},
    "run": {"study": "quadratic"},
}


def write_sweeps(folder: Path) -> list[Path]:
    """One staged sweep a batch size: three rates around the best, to be refined; fresh seeds confirm."""
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    files = []
    for i, size in enumerate(SIZES):
        steps, best = noisy_quadratic.tuned(size)
        start = best * 2 ** (0.5 * np.sin(i))  # off the best, by a different share at each size
        rates = [float(f"{start * factor:.4g}") for factor in (0.5, 1.0, 2.0)]
        target = f"[{{metric: val/loss, direction: min, value: {noisy_quadratic.GOAL}}}]"
        values = {
            **{"data.batch_size": [size], "model.optimizer.init_args.lr": rates, "seed_everything": [1]},
            **{"convergence.targets": [target], "convergence.budget_steps": [int(4 * steps)]},
            "convergence.budget_examples": [int(4 * steps * size)],
        }
        command = ["${interpreter}", "-m", "tasks", "fit", "--config", str(folder / "config.yaml"), "${args}"]
        parameters = {name: {"values": given} for name, given in values.items()}
        sweep = {"program": "tasks/__main__.py", "method": "grid", "command": command, "parameters": parameters}
        plan = {"learning_rate": "model.optimizer.init_args.lr", "tune": {"seeds": [1, 2]}}
        files.append(folder / f"quadratic{size}.yaml")
        files[-1].write_text(yaml.safe_dump(sweep))
        plan |= {"confirm": {"seeds": [11, 12, 13, 14, 15]}}
        (folder / f"quadratic{size}.plan.yaml").write_text(yaml.safe_dump(plan))
    return files


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_report_finds_the_known_critical_batch_size(tmp_path):
    def tasks(*command):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "tasks", *map(str, command)], cwd=ROOT, env=environment, check=True)

    tasks("sweep", *write_sweeps(tmp_path), "--runs", tmp_path / "runs")
    tasks("report", tmp_path / "runs", "--out", tmp_path / "report")
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    (workload,) = summary["workloads"]
    dense = 2.0 ** np.arange(4, 10.01, 0.25)
    truth = size_at(dense, np.log([noisy_quadratic.tuned(b)[0] for b in dense]), 2.0)
    found = workload["critical_batch_size"]
    print(f"known B2 {truth:.0f}, found {found['estimate']:.0f} [{found['low']:.0f}, {found['high']:.0f}]")
    assert workload["tuned"]
    assert [p["n"] for p in workload["points"]] == [5] * len(SIZES)
    assert float(found["low"]) <= truth <= float(found["high"])
    assert found["estimate"] == pytest.approx(truth, rel=0.25)  # the scatter of one study of 5 seeds is 15 %
    for point in workload["points"]:
        assert point["steps"]["median"] == pytest.approx(noisy_quadratic.tuned(point["batch_size"])[0], rel=0.25)
