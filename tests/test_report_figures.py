"""Every named figure: drawn from runs that can give it, with its numbers; refused with the reason from others."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from tasks.report.analysis import measures
from tasks.report.analysis.answer import analyze
from tasks.report.analysis.critical import critical
from tasks.report.build import FIGURES
from tasks.report.command import main
from tasks.report.command import parser as command_parser
from tasks.report.figures import own
from tasks.report.figures.style import Drawing, NotDrawable, shortened
from tasks.report.render.page import curve_summary
from tasks.report.render.tables import curve_tables
from tests.helpers.fake_runs import make_study
from tests.helpers.made_up import (
    EXAMPLES,
    FULL,
    SIZES,
    hyperbola,
    log_growth,
    optimizers,
    placed,
    power,
    run,
    rung,
    study,
    walks,
)
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


def panels_of(drawing):
    """The panels of a figure, drawn in memory."""
    figure, axes = plt.subplots(ncols=drawing.panels, squeeze=False)
    drawing.draw(axes[0])
    plt.close(figure)
    return axes[0]


def short(label):
    """The name of a curve without its target's value and its number of runs."""
    return re.split(r" ≥ | \(n = ", str(label))[0]


def line(panel, name):
    """The numbers of the one line that the legend calls so."""
    (found,) = [line for line in panel.get_lines() if short(line.get_label()) == name]
    return list(found.get_xdata()), list(found.get_ydata())


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_from_runs_that_give_it(name, tmp_path):
    drawing = FIGURES[name][1](analyzed(*WORK[name]))
    assert isinstance(drawing, Drawing), drawing
    for panel in panels_of(drawing):
        numbers = [np.ravel(line.get_ydata()) for line in panel.get_lines()]
        numbers += [np.ravel(drawn.get_array()) for drawn in panel.collections if drawn.get_array() is not None]
        assert panel.get_ylabel()
        assert np.isfinite(np.concatenate(numbers).astype(float)).sum() >= 2
    svg, png = tmp_path / "x.svg", tmp_path / "x.png"
    drawing.save([svg, png])
    said = "".join(ElementTree.parse(svg).getroot().itertext())
    assert all(panel.get_ylabel() in said for panel in panels_of(drawing))
    with Image.open(png) as picture:
        assert len(picture.convert("RGB").getcolors(10**6)) > 20  # blank paper has one, axes alone a few greys
    assert drawing.table.rows
    assert all(len(row) == len(drawing.table.columns) for row in drawing.table.rows)


REASONS = {
    "golmant-1": "no runs with trainset/loss in their curves",
    "golmant-2": "no study with two or more learning-rate scaling rules",
    "golmant-3": "no study with two or more networks, data sets or levels of label noise",
    "golmant-4": "no study with two or more data fractions",
    "you-optimizers": "no study with test accuracies of two or more optimizers at its largest batch",
    "you-recipe": "no study that adds ingredients to a baseline at its largest batch",
    "you-diffusion": "no runs with distance/total in their curves",
    "time-and-cost": "no runs on one device with parameter count and seconds of which half arrived",
    "noise-scale": "fewer than 4 targets with noise_scale/simple and a fitted curve (choose more with --target)",
    "noise-along": "no runs with noise_scale/simple or a probe",
    "curvature": "no runs with linear_error/absolute or sharpness/keskar",
    "cost": "no runs with the instrument Cost",
}


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "golmant-5"])
def test_a_figure_says_why_it_cannot_be_drawn(name):
    assert FIGURES[name][1](analyzed(study(hyperbola(500)))) == NotDrawable(REASONS[name])


@pytest.mark.parametrize(
    ("name", "curves"),
    [
        ("golmant-3", {"net 200": hyperbola(200), "net 2000": hyperbola(2000)}),
        ("golmant-4", {"25 % of the data": hyperbola(500), "100 % of the data": hyperbola(500)}),
        ("golmant-5", {"trainset/loss": hyperbola(500), "val/accuracy": hyperbola(500)}),
    ],
)
def test_compared_curves_have_the_steps_that_their_runs_took(name, curves):
    drawing = FIGURES[name][1](analyzed(*WORK[name]))
    panel = panels_of(drawing)[0]
    for label, steps in curves.items():
        rows = [row for row in drawing.table.rows if short(row[1]) == label]
        assert [row[2] for row in rows] == SIZES
        assert all(row[3:7] == [5, 5, 0, 0] for row in rows)
        assert [row[7].value for row in rows] == pytest.approx([steps(size) for size in SIZES], rel=0.03)
        sizes, drawn = line(panel, label)
        assert drawn == [row[7].value for row in rows]
        assert sizes == pytest.approx(SIZES, rel=0.04)  # beside each other, so that none hides another


def test_the_test_accuracy_of_golmant_5_stands_beside_its_steps():
    beside = panels_of(FIGURES["golmant-5"][1](analyzed(*WORK["golmant-5"])))[1]
    means = [line for line in beside.get_lines() if len(line.get_xdata()) == len(SIZES)]
    assert [list(line.get_ydata()) for line in means] == [[pytest.approx(80.0)] * len(SIZES)]


def test_optimizers_are_compared_by_the_trials_of_each_and_the_mean_of_its_best_setting():
    """A setting's 24 runs lose 0, 1, 3 or 8 points, and a scatter of 0.2: 2 in the median, 3 in the mean."""
    rows = FIGURES["you-optimizers"][1](analyzed(*WORK["you-optimizers"])).table.rows
    assert [row[:3] for row in rows] == [[name, EXAMPLES, 24] for name in ("SGD", "LARS", "LAMB")]
    assert [row[3] for row in rows] == pytest.approx([90, 93, 95], abs=0.1)
    assert [row[4].value for row in rows] == pytest.approx([89, 92, 94], abs=0.1)


@pytest.mark.parametrize(("form", "wins"), [(log_growth, (5, 0)), (lambda t: t**0.4, (0, 5))], ids=["log", "power"])
def test_the_form_by_which_distances_grow_wins_in_every_run(form, wins):
    rows = FIGURES["you-diffusion"][1](analyzed(walks(form))).table.rows
    assert [row[0] for row in rows] == SIZES[::3]
    assert all(tuple(row[1:5]) == (5, 5, *wins) for row in rows)
    assert all((row[5] > 10) == (wins[0] > 0) and (row[5] < -10) == (wins[1] > 0) for row in rows)


def test_time_and_cost_on_one_device_are_the_runs_own():
    rows = FIGURES["time-and-cost"][1](analyzed(*WORK["time-and-cost"])).table.rows
    alone = {size: seconds for size, devices, seconds, _ in rows if devices == 1}
    own = {size: hyperbola(500)(size) * (0.001 + 1e-5 * size) for size in SIZES}
    assert alone == pytest.approx(own, rel=0.03)
    per_hour = [3600 * cost / (devices * seconds) for _, devices, seconds, cost in rows]
    assert max(per_hour) == pytest.approx(min(per_hour))  # every device costs the same, busy or waiting
    for devices in {row[1] for row in rows} - {1}:  # a batch that is shared needs no less than its part of the time
        assert all(seconds >= alone[size] / devices for size, d, seconds, _ in rows if d == devices)


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
        predicted = curve_tables([(w.curves[0], found)])["Predicted and measured"]
        assert predicted.rows == [[w.curves[0].name, *row[2:]]]
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


def test_a_figure_is_shortened_in_its_places_and_not_in_its_words():
    path = '<path d="M 1.2345 2.0001" style="opacity: 0.08"/>'
    text = '<text x="3.456" transform="rotate(-0 1.2345 2)" style="font-size: 10px">0.955 [0.712, 1.28]</text>'
    short = shortened(f'<svg><style>*{{a: b}}</style><g id="x">{path}{text}</g></svg>')
    assert 'd="M 1.2 2"' in short
    assert "opacity: 0.08" in short
    assert ">0.955 [0.712, 1.28]<" in short


def test_rules_of_which_none_arrives_at_the_smallest_size_still_give_a_figure(tmp_path):
    same = {"tuned": False, "each": with_test, "rate__base_batch_size": 16}
    never = [study(lambda b: math.inf, rate__scaling_rule=rule, **same) for rule in ("none", "linear")]
    FIGURES["golmant-2"][1](analyzed(*never)).save([tmp_path / "f.svg"])


def test_a_probe_without_a_noise_scale_is_drawn(tmp_path):
    changes = instrumented(16, 0)
    changes["curve"] = {name: changes["curve"][name] for name in ("step", "epoch")}
    FIGURES["noise-along"][1](analyzed([run([made_up_hit(100.0, 16)], 16, 0, **changes)])).save(
        [tmp_path / "probe.png"]
    )
    assert (tmp_path / "probe.png").stat().st_size > 5000
