"""The names that the instruments write are those that the report looks for: a real run with the overlays, read back."""

import math
from pathlib import Path

import pytest

from tasks.__main__ import main
from tasks.report.analysis.critical import critical
from tasks.report.analysis.curves import workloads
from tasks.report.analysis.measures import CURVATURE, DISTANCE, LINEAR_ERROR, NOISE, curvature_batch_of, noise_scale_of
from tasks.report.analysis.targets import parse, retarget
from tasks.report.render.tables import curve_tables
from tasks.report.sources.runs import read_runs

CONFIGS = Path(__file__).parents[1] / "configs"
OVERLAYS = ("gradient_noise_scale", "weight_distance", "linear_approximation_error", "sharpness")


def test_a_run_with_the_instruments_is_read_back_with_what_they_measured(tmp_path):
    flags = ["fit", "--config", str(CONFIGS / "image_classification" / "fashion_mnist.yaml")]
    for name in OVERLAYS:
        flags += ["--config", str(CONFIGS / "instruments" / f"{name}.yaml")]
    flags += ["--trainer.callbacks.dimensions", "2", "--trainer.callbacks.iterations", "5"]  # of the last, Sharpness
    flags += ["--trainer.callbacks.examples", "2"]
    flags += ["--data.variant.examples", "60", "--data.batch_size", "20", "--data.epochs", "2"]
    flags += ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path)]
    assert (
        main(
            [
                *flags,
                "--progress.show",
                "false",
                "--convergence.stop",
                "false",
                "--evaluation.first",
                "1",
                "--evaluation.every_split",
                "true",
            ]
        )
        == 0
    )
    runs, left_out = read_runs(tmp_path)
    (run,) = runs
    assert not left_out
    assert all(math.isfinite(run.curve[name][-1]) for name in (NOISE, DISTANCE))
    assert all(math.isfinite(run.record.final[name]) for name in (LINEAR_ERROR, CURVATURE))
    loss = run.curve["trainset/loss"]
    (workload,) = workloads(retarget(runs, [parse(f"trainset/loss<={sorted(loss)[2]}")]))
    (curve,) = workload.curves
    noise = [v for v in run.curve[NOISE] if math.isfinite(v)]  # none before the first step
    assert min(noise) <= noise_scale_of(curve).value <= max(noise)
    assert curvature_batch_of(curve).value == pytest.approx(run.record.final[CURVATURE])
    assert critical(curve) is None  # one batch size
    assert curve_tables([(curve, None)]) == {}
