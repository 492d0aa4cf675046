"""Every named figure: drawn from runs that can give it, with its numbers; refused with the reason from others."""

import math
import re

import numpy as np
import pytest

from tasks.report.analysis import measures
from tasks.report.analysis.answer import analyze
from tasks.report.analysis.critical import critical
from tasks.report.build import FIGURES
from tasks.report.command import main
from tasks.report.command import parser as command_parser
from tasks.report.figures import own
from tasks.report.figures.style import Drawing, NotDrawable
from tasks.report.render.summary import curve_summary
from tasks.report.render.tables import predicted_table
from tests.helpers.fake_runs import make_study
from tests.helpers.made_up import FULL, SIZES, hyperbola, log_growth, optimizers, placed, power, run, rung, study, walks
from tests.helpers.made_up import hit as made_up_hit


def analyzed(*studies):
    return analyze([r for runs in studies for r in runs])


def losses(size, seed):
    """A training loss that takes 200 (1 + 500 / B) steps per factor of e."""
    scale = 200 * (1 + 500 / size)
    steps = [0, *np.geomspace(1, 3 * scale, 60)]
    return {"curve": {"step": steps, "trainset/loss": [2 * math.exp(-s / scale) for s in steps]}}


def with_test(size, seed):
    return {"test": {"test/accuracy": 0.8}, "final": {"step": 9, "linear_error/absolute": size / 700}}


def rules():
    same = {"tuned": False, "each": with_test, "rate__base_batch_size": 16}
    return [study(power(s), rate__scaling_rule=r, **same) for r, s in (("none", 0.5), ("linear", 0.9))]


def noisy():
    """Four targets with the noise scale that the hyperbola has."""

    def runs(size, seed):
        scales = [100 * 2**k for k in range(4)]
        hits = [made_up_hit(200 * (1 + c / size), size, f"trainset/metric{k}") for k, c in enumerate(scales)]
        steps = [200 * (1 + c / size) for c in scales]
        curve = {"step": steps, measures.NOISE: [float(c) for c in scales]}
        final = {"step": 9, measures.CURVATURE: 700.0 + seed}
        return run(hits, size, seed, curve, rate__effective=size**0.5, final=final)

    return [runs(size, seed) for size in SIZES for seed in range(3)]


def instrumented(size, seed):
    """Noise that doubles at each evaluation and a gradient that was lost once; a probe; curvature; a cost by hand."""
    curve = {"step": [0, 10, 100], "epoch": [0.0, 0.1, 1.0], own.NOISE: [8.0, math.nan, 32.0]}
    curve |= {own.ERROR: [1.0, math.nan, 2.0]}
    probe = {"branches": [{"step": 5, "low": size, "high": 2 * size}, {"step": 50, "low": size, "high": math.inf}]}
    names = (own.LINEAR_ERROR, own.RELATIVE, own.KESKAR, own.TOP, own.EXAMPLE)
    end = dict.fromkeys(names, 1.0 + seed) | {own.CURVATURE: 5.0 + seed, "step": 100}
    used = {"training_seconds": 2.0, "wall_seconds": 3.0, "examples_per_second": 50.0 * size, "flops": 4e9}
    used |= {"peak_memory_bytes": 2**30, "money": 7.0, "currency": "EUR", "prices_of": "2026-01-02"}
    return {"curve": curve, "instruments__probe": probe, "final": end, "cost": used}


def measured(size, seed):
    return {"final": {"step": 100, "examples": 100 * size, "seconds": 100 * (0.001 + 1e-5 * size)}, "parameters": 10**6}


WORK = {
    "golmant-1": [study(hyperbola(500), each=losses, tuned=False)],
    "golmant-2": rules(),
    "golmant-3": [study(hyperbola(c), network=f"net {c}") for c in (200, 2000)],
    "golmant-4": [study(hyperbola(500), data__fraction=f, data__hash=f"{f}") for f in (0.25, 1.0)],
    "golmant-5": [study(hyperbola(500), metrics=("trainset/loss", "val/accuracy"), each=with_test)],
    "you-optimizers": optimizers({"SGD": 92, "LARS": 95, "LAMB": 97}),
    "you-recipe": [rung([], 70), rung(FULL[:1], 75), rung(FULL, 85)],
    "you-diffusion": [walks(log_growth)],
    "time-and-cost": [study(hyperbola(500), each=measured)],
    "noise-scale": [noisy()],
    **{name: [study(hyperbola(500), seeds=3, each=instrumented)] for name in ("noise-along", "curvature", "cost")},
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_from_runs_that_give_it(name, tmp_path):
    drawing = FIGURES[name][1](analyzed(*WORK[name]))
    assert isinstance(drawing, Drawing), drawing
    files = [tmp_path / f"x.{kind}" for kind in ("svg", "png")]
    drawing.save(files)
    assert all(file.stat().st_size > 5000 for file in files)
    assert drawing.table.rows
    assert all(len(row) == len(drawing.table.columns) for row in drawing.table.rows)


@pytest.mark.parametrize("name", [n for n in FIGURES if n not in ("golmant-5")])
def test_a_figure_says_why_it_cannot_be_drawn(name):
    found = FIGURES[name][1](analyzed(study(hyperbola(500))))
    assert isinstance(found, NotDrawable)
    assert "no " in found.reason or name == "noise-scale"


def test_every_figure_has_its_case_and_its_place_in_the_help():
    assert set(WORK) == set(FIGURES)
    text = re.sub(r"\s+", "", command_parser().format_help())
    assert all(name in text for name in FIGURES if not re.fullmatch(r"golmant-[2-4]", name))


def test_contours_follow_the_loss():
    rows = FIGURES["golmant-1"][1](analyzed(*WORK["golmant-1"])).table.rows
    for _, _, level, size, steps in rows:
        exact = 200 * (1 + 500 / size) * math.log(2 / level)
        assert exact * 0.99 <= steps <= exact * 1.2  # the first evaluation at or below it


def test_speedup_is_against_the_smallest_batch():
    rows = FIGURES["golmant-2"][1](analyzed(*rules())).table.rows
    ideal = {size: best for _, size, _, best in rows}
    assert ideal[1024] == 64
    linear = {size: s for name, size, s, _ in rows if "linear" in name}
    assert linear[1024] == pytest.approx(64**0.9, rel=0.05)


def test_gains_of_the_ladder_are_differences_of_its_rungs():
    rows = FIGURES["you-recipe"][1](analyzed(*WORK["you-recipe"])).table.rows
    assert [row[0] for row in rows] == ["baseline", "+ warm-up", "+ lars, smoothing"]
    assert rows[1][3].value == pytest.approx(5, abs=0.3)
    assert rows[2][3].value == pytest.approx(10, abs=0.5)


def test_predicted_and_measured_noise_agree_where_they_are_made_to():
    rows = FIGURES["noise-scale"][1](analyzed(*WORK["noise-scale"])).table.rows
    assert len(rows) == 4
    for _, _, noise, curvature, measured_size, _ in rows:
        assert measured_size.value == pytest.approx(noise.value, rel=0.05)
        assert (curvature.value, curvature.low > 699, curvature.high < 703) == (701, True, True)
    for row, w in zip(rows, placed(*WORK["noise-scale"]), strict=True):
        found = critical(w.curves[0])
        assert predicted_table([(w.curves[0], found)]).rows == [[w.curves[0].name, *row[2:]]]
        assert curve_summary(w, w.curves[0], found)["predicted"]["noise_scale"]["estimate"] == row[2].value


def test_a_noise_scale_that_is_undefined_at_the_target_counts_as_infinite():
    nan = math.nan

    def noise(seed, *values):
        curve = {"step": [0, 10, 20, 40], measures.NOISE: list(values)}
        return run([made_up_hit(30, 16, "trainset/loss")], 16, seed, curve)

    columns = (nan, 1.0, 4.0, 8.0), (nan, 1.0, 4.0, nan), (nan, 1.0, nan, 9.0), (nan, nan, nan, 9.0)
    scales = [noise(seed, *values) for seed, values in enumerate(columns)]
    ((curve,),) = [w.curves for w in placed(scales)]
    found = [measures.noise_at_hit(o) for p in curve.points for o in p.counted]
    assert found[:3] == pytest.approx([6.0, math.inf, math.inf])
    assert math.isnan(found[3])  # not sampled yet
    assert measures.noise_scale_of(curve).value == math.inf


def test_instruments_are_summed_up_as_by_hand():
    runs = analyzed(*WORK["cost"])
    size, n, *cells = FIGURES["cost"][1](runs).table.rows[0]
    assert (size, n) == (16, 3)
    assert [c.value for c in cells[:6]] == [2.0, 3.0, 800.0, 4.0, 2.0, 1024.0]
    assert math.isnan(cells[6].value)  # no meter: not known, not zero
    assert cells[7].value == 7.0
    size, n, *cells = FIGURES["curvature"][1](runs).table.rows[0]
    assert [c.value for c in cells] == [2.0] * 5 + [6.0]
    assert cells[5].high - 6.0 == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)  # Student's t, 2 degrees of freedom
    _, _, early, late, lost, probe = FIGURES["noise-along"][1](runs).table.rows[0]
    assert math.isnan(early.value)  # the evaluation there lost the gradient; no other stands in for it
    assert (late.low, late.value, late.high) == (28.0, 32.0, 36.0)
    assert lost == "1 of 2"
    assert probe == "step 5: 16 to 32; step 50: 16 to ∞"


@pytest.fixture
def folder(tmp_path):
    return make_study(tmp_path / "runs", lambda b: 100 * (1 + 300 / b), [16, 64, 256], range(2))


def test_one_figure_by_name(folder, tmp_path, capsys):
    assert main([str(folder), "--out", str(tmp_path / "out"), "--figure", "golmant-1"]) == 0
    assert capsys.readouterr().out.strip().endswith("golmant-1.svg")
    assert {f.name for f in (tmp_path / "out" / "figures").iterdir()} == {"golmant-1.svg", "golmant-1.png"}
    assert not (tmp_path / "out" / "report.html").exists()


def test_bad_figures_and_clusters_are_one_sentence(folder, tmp_path, capsys):
    bad = tmp_path / "c.yaml"
    bad.write_text("devces: [1]\n")
    for more in (["--figure", "golmant-9"], ["--figure", "you-recipe"], ["--cluster", str(bad)], ["--target", "x"]):
        assert main([str(folder), "--out", str(tmp_path / "out"), *more]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
