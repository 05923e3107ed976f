"""The page of a comparison and its figures."""

import html.parser
import re
from itertools import combinations

import compare_reports
import numpy as np
import pytest
from matplotlib.text import Annotation, Text

from rnnx.analysis.pictures import Picture
from rnnx.compare import drawing, figures, report
from rnnx.compare.page import page


def _plain(task: str = "forecast", models: int = 12) -> dict:
    made = compare_reports.report(task)
    made["models"] = made["models"][:models]
    return report.plain(made)


class Parsed(html.parser.HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]


@pytest.fixture(scope="module")
def whole() -> str:
    return page(_plain())


def test_the_page_needs_nothing_else(whole: str) -> None:
    assert not re.search(r"https?://|@import|<link|<metadata|<script|url\((?!#)", whole)
    parsed = Parsed(whole)
    ids = parsed.of("id")
    assert len(ids) == len(set(ids)) > 1000
    targets = parsed.of("href", "xlink:href", "src")
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in targets)
    targets += [f"#{name}" for name in re.findall(r"url\(#([^)]*)\)", whole)]
    assert {t[1:] for t in targets if t.startswith("#")} <= set(ids)
    assert parsed.tags.count("svg") == 8
    assert drawing.INK not in whole and "currentColor" in whole
    assert "prefers-color-scheme: dark" in whole and "@media print" in whole


def test_the_parts_stand_in_order(whole: str) -> None:
    headings = re.findall(r"<h[23]>([^<]*)</h[23]>", whole)
    assert headings == [
        "The differences", "The data", "What was mended", "Scores", "What it costs",
        "Error against latency", "Error against training time", "How they learned",
        "Learning curves", "What it predicts", "Forecasts over the truth", "Error by step ahead",
        "Robustness to learning rate and initial range", "With less training data", "Control",
        "How it was done", "Left out", "Statistics", "Machine", "Commands",
    ]  # fmt: skip
    assert whole.index("MI-RHN L=2 is worth it against") < whole.index("The data</h2>")
    assert 'class="warn" id="warnings"' in whole
    assert re.search(r'<tr class="best"><td>MI-RHN L=2<small>best</small>', whole)
    assert re.search(r'<tr class="behind"><td>RNN<small>behind same hour last week', whole)


def test_parts_without_data_say_so_or_are_gone() -> None:
    made = _plain(models=3)
    for model in made["models"]:
        model.update(
            latency_us=None, train_seconds=None, curves=None, by_step=None, tuning=None,
            equal_time=None, interval=None, metrics=None, window_us=None, throughput=None,
            memory_bytes=None, disk_bytes=None, seconds_to_lstm=None,
        )  # fmt: skip
    made["models"][2].update(score=None, scores_by_seed=[], diverged=6)
    made.update(
        control=None, chosen=None, verdicts=[], fractions=None, examples=None, machine=None,
        commands=None, floors=[],
        data={"name": "x"}, plan={"seeds": 6},
    )  # fmt: skip
    whole = page(made)
    assert "<svg" not in whole
    for told in (
        "Latency was not measured.", "Training time was not measured.",
        "No learning curves were kept.", "No tuning trial ended with a score.", "No examples",
        "The cost was not measured.", "Smaller parts of the training data", "Nothing had to be",
        "6 of 6 seeds diverged",
    ):  # fmt: skip
        assert told in whole, told
    for gone in ("Control", "Error by step", "Commands", "Machine", "at equal time", "warnings"):
        assert gone not in whole, gone


BAD = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>& $\\frac{$"


@pytest.mark.parametrize("task", report.TASKS)
def test_nothing_from_data_becomes_html(task: str) -> None:
    made = _plain(task, models=2)
    for model in made["models"]:
        model.update(curves=None, tuning=[], latency_us=None, behind_floor=BAD)
    made.update(unit=BAD, commands=[BAD], metric=BAD)
    made["data"].update(name=BAD, file=BAD, about=[BAD], notes=[BAD], warnings=[BAD])
    made["plan"]["left_out"] = [BAD]
    made["floors"][0]["name"] = BAD
    made["chosen"]["why"] = made["chosen"]["command"] = BAD
    made["verdicts"] = [made["verdicts"][0] | {"question": BAD, "sentence": BAD, "answer": BAD}]
    made["control"]["sentence"] = BAD
    made["machine"]["device"] = BAD
    examples = made["examples"]
    for entry in (*examples.get("forecasts", []), *examples.get("samples", [])):
        entry.update(series=BAD, target=BAD, prompt=BAD, text=BAD)
    if "confusion" in examples:
        examples["confusion"]["classes"] = [BAD] * 9
    parsed = Parsed(page(made))
    assert not {"script", "img"} & set(parsed.tags)
    assert not any(name.startswith("on") for name, _ in parsed.attributes)
    assert "".join(parsed.words).count(BAD) >= 14


def test_examples_of_every_task_are_shown() -> None:
    for task, name in (
        ("forecast", "forecasts"), ("classify", "confusion"), ("regress", "scatter"),
    ):  # fmt: skip
        assert figures._example(_plain(task)).name == name
    assert figures._example(_plain("text")) is None
    assert "<pre><strong>The </strong>company said" in page(_plain("text", models=0))


def test_the_worst_forecasts_come_first() -> None:
    made = _plain()
    axes = figures._example(made).figure.axes
    scores = [float(re.search(r"MAE ([\d.]+)", ax.get_title())[1]) for ax in axes]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 6
    assert "from 2018-03-03 05:00" in axes[0].get_title()


def test_a_colour_stands_for_a_cell_and_mi_is_filled() -> None:
    styles = drawing.styles_of(_plain())
    for name, cell, integration, _ in compare_reports.NETWORKS:
        assert styles[name]["color"] == drawing._COLOURS[cell]
        filled = integration == "mi"
        assert (styles[name]["markerfacecolor"] != "none") == filled
        assert styles[name]["linestyle"] == ("-" if filled else "--")
    looks = {(s["color"], s["marker"], s["markerfacecolor"]) for s in styles.values()}
    assert len(looks) == len(styles)


@pytest.mark.parametrize("spread", [1.0, 0.3])
def test_names_beside_points_cover_nothing(spread: float) -> None:
    """Twelve points, also close together: no name on another, on a marker, or outside."""
    made = _plain()
    centre = np.mean([m["score"] for m in made["models"]])
    for model in made["models"]:
        moved = centre + spread * (model["score"] - centre)
        model.update(score=moved, interval=[0.995 * moved, 1.005 * moved])
    figure = figures._latency(made).figure
    figure.draw_without_rendering()
    (ax,) = figure.axes
    renderer = figure.canvas.get_renderer()
    names = [text for text in ax.texts if isinstance(text, Annotation)]
    assert len(names) == 12
    frame = ax.get_window_extent(renderer)
    boxes = [Text.get_window_extent(text, renderer) for text in names]
    assert all(not one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 for b in boxes)
    for model in made["models"]:
        at = ax.transData.transform((model["latency_us"]["p50"], model["score"]))
        assert not any(box.contains(*at) for box in boxes)


def test_dominated_are_grey_and_the_best_floor_is_drawn_or_told() -> None:
    made = _plain()
    made["models"][2]["latency_us"] = None
    picture = figures._latency(made)
    models = [model for model in made["models"] if model["latency_us"]]
    points = [(m["score"], m["latency_us"]["p50"]) for m in models]
    beaten = [any(a < s and b < c for a, b in points) for s, c in points]
    colours = {text.get_text(): text.get_color() for text in picture.figure.axes[0].texts}
    for model, lost in zip(models, beaten, strict=True):
        assert (colours[model["name"]] == drawing.GREY) == lost
    grey = [line for line in picture.figure.axes[0].lines if line.get_color() == drawing.GREY]
    assert len(grey) == 2 * sum(beaten) > 0  # marker and bar
    assert "Dashed: the best floor, same hour last week." in picture.reading
    made["floors"][1]["score"] = made["floors"][2]["score"] = 9e9
    told = figures._latency(made).reading
    assert "The best floor, last value, is at 3,432, far above." in told


def test_an_axis_is_logarithmic_beyond_a_decade() -> None:
    made = _plain()
    assert figures._training(made).figure.axes[0].get_xscale() == "linear"
    made["models"][0]["train_seconds"] = 3.0
    assert figures._training(made).figure.axes[0].get_xscale() == "log"


def test_diverged_trials_are_crosses_at_the_edge() -> None:
    made = _plain()
    lost = sum(t["score"] is None for m in made["models"] for t in m["tuning"])
    figure = figures._tuning(made).figure
    crosses = [line for ax in figure.axes for line in ax.lines if line.get_marker() == "x"]
    assert len(crosses) == 2 * lost > 0
    assert all(list(line.get_ydata()) == [1.0] for line in crosses)


def test_curves_are_medians_over_the_seeds_that_have_a_score() -> None:
    seeds = [
        [{"epoch": 1, "valid": 1.0}, {"epoch": 2, "valid": None}],
        [{"epoch": 1, "valid": 3.0}, {"epoch": 2, "valid": 2.0}],
        [{"epoch": 1, "valid": None}],
    ]
    epochs, values = drawing.curve_of(seeds)
    assert epochs.tolist() == [1, 2]
    assert np.array_equal(values, [[1.0, np.nan], [3.0, 2.0]], equal_nan=True)
    assert drawing.curve_of(None) is None and drawing.curve_of([seeds[2]]) is None
    made = _plain(models=5)
    made["models"][0]["curves"] = [
        [{"epoch": e, "valid": v * seed} for e, v in ((1, 3.0), (2, 1.0), (3, 2.0))]
        for seed in (1, 2, 9)
    ]
    picture = figures._curves(made)
    assert isinstance(picture, Picture)
    lines = [line for ax in picture.figure.axes for line in ax.lines if line.get_label() == "LSTM"]
    assert all(list(line.get_ydata()) == [6.0, 2.0, 4.0] for line in lines) and lines


def test_a_confusion_is_in_shares_of_the_true_class() -> None:
    drawn = figures._confusion(["a", "b"], [[3, 1], [0, 8]]).figure.axes[0]
    assert np.array_equal(drawn.images[0].get_array(), [[0.75, 0.25], [0.0, 1.0]])
    counts = {text.get_position(): text.get_text() for text in drawn.texts}
    assert counts == {(0, 0): "3", (1, 0): "1", (1, 1): "8"}  # predicted, true
    assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("predicted", "true")


def test_predictions_are_drawn_above_the_truth() -> None:
    line, points = figures._scatter({"unit": "K"}, [1.0, 5.0], [2.0, 4.0]).figure.axes[0].lines
    assert list(points.get_xdata()) == [1.0, 5.0] and list(points.get_ydata()) == [2.0, 4.0]
    assert list(line.get_xdata()) == list(line.get_ydata()) == [1.0, 5.0]


def test_differences_are_drawn_in_percent() -> None:
    made = _plain()
    made["verdicts"] = [v for v in made["verdicts"] if v["equal"] == "epochs"][:2]
    lines = figures._differences(made).figure.axes[0].lines
    for i, found in enumerate([*made["verdicts"], made["control"]]):
        bar, point = lines[2 * i : 2 * i + 2]
        assert list(bar.get_xdata()) == pytest.approx([100 * end for end in found["interval"]])
        assert list(point.get_xdata()) == pytest.approx([100 * found["difference"]])
    assert list(lines[-1].get_xdata()) == [-2.0, -2.0]  # the margin


def test_shares_of_the_training_data_are_drawn_with_their_scores() -> None:
    made = _plain()
    made["fractions"] = [f for f in made["fractions"] if f["model"] == "MI-LSTM"][::-1]
    line, *_ = figures._fractions(made).figure.axes[0].lines
    assert list(line.get_xdata()) == pytest.approx([10, 30, 100])
    scores = {f["fraction"]: f["score"] for f in made["fractions"]}
    assert list(line.get_ydata()) == pytest.approx([scores[f] for f in (0.1, 0.3, 1.0)])
