"""Pictures: every axis says what it shows and in which unit, and no figure is left open."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers import load_recipe, plots, speed_plots
from helpers.roofline import Peaks
from helpers.stops import Checkpoint
from helpers.text_lengths import TextLengths

# Labels of axes that count things or name them, so that there is no unit to give.
WITHOUT_UNIT = {
    "epoch",
    "model",
    "weight matrix",
    "encoder layer",
    "model, engine",
    "shape of a call",
}
PEAKS = Peaks(fp32=200.0, int8=800.0, memory=30.0, threads=2)
STEPS = [{"epoch": 0.5, "loss": 1.2, "step": 10}, {"epoch": 1.0, "loss": 0.9, "step": 20}]
SCORES = [
    {"epoch": 1.0, "eval_loss": 1.0, "eval_accuracy": 0.71, "step": 20},
    {"epoch": 2.0, "eval_loss": 0.8, "eval_accuracy": 0.75, "step": 40},
]


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    """Draw into memory, and see that nothing is left open: a notebook would show it twice."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield
    assert pyplot.get_fignums() == []


def checkpoint(history: list[dict]) -> Checkpoint:
    """Return a checkpoint with this log of its training."""
    return Checkpoint(Path("dense"), {"history": history})


def timings(*rows: tuple[str, str, float]) -> pd.DataFrame:
    """Return a table as `path.with_quality` does: model, engine, median_ms and the quality."""
    table = pd.DataFrame(rows, columns=["model", "engine", "median_ms"])
    return table.assign(accuracy=np.linspace(0.7, 0.8, len(table)), zipped_mb=12.5)


def check_labels(axis: Axes) -> None:
    """Every label is there and, where there is something to measure, ends in its unit."""
    for label in (axis.get_xlabel(), axis.get_ylabel()):
        assert label
        assert label in WITHOUT_UNIT or "(" in label, f"{label} has no unit"


def drawn(figure: Figure) -> Figure:
    """Check the labels of all axes but colour bars, draw for real, and return the figure."""
    assert isinstance(figure, Figure)
    for axis in figure.axes:
        if axis.get_label() != "<colorbar>":
            check_labels(axis)
    figure.canvas.draw()
    return figure


def texts(axis: Axes) -> set[str]:
    """Return the words written into a plot."""
    return {text.get_text().strip() for text in axis.texts}


def test_learning_curve() -> None:
    left, right = drawn(plots.learning_curve(checkpoint(STEPS + SCORES))).axes
    assert len(left.lines) == 2
    assert texts(right) == {"71.0", "75.0"}


def test_learning_curve_of_a_run_too_short_to_log_a_loss() -> None:
    left, _ = drawn(plots.learning_curve(checkpoint(SCORES))).axes
    assert len(left.lines[0].get_xdata()) == 0


def test_learning_curve_of_another_metric() -> None:
    scores = [{"epoch": 1.0, "eval_loss": 1.0, "eval_accuracy": 0.1, "eval_f1": 0.62}]
    _, right = drawn(plots.learning_curve(checkpoint(scores), metric="f1")).axes
    assert texts(right) == {"62.0"}
    assert right.get_ylabel() == "validation f1 (%)"


def test_sparsity_map() -> None:
    names = ["attention.self.query", "output.dense"]
    rows = [(layer, name, 4, 4, 0.8) for layer in (0, 1) for name in names]
    head = [(-1, "classifier", 2, 4, 0.0)]
    columns = ["layer", "matrix", "rows", "columns", "sparsity"]
    figure = drawn(plots.sparsity_map(pd.DataFrame(rows + head, columns=columns), "zeros"))
    axis, bar = figure.axes
    assert [text.get_text() for text in axis.texts] == ["80"] * 4, "the head is not in the picture"
    assert bar.get_ylabel() == "zeros (%)"


@pytest.mark.parametrize("chance", [None, 0.2])
def test_accuracies(chance: float | None) -> None:
    (axis,) = drawn(plots.accuracies({"dense": 0.812, "prune80": 0.79}, chance=chance)).axes
    assert {"81.2", "79.0"} <= texts(axis)
    assert ("guessing" in texts(axis)) == (chance is not None)


def test_answer_scores() -> None:
    scores = {
        "dense": {"f1": 0.71, "exact_match": 0.6},
        "sparse": {"f1": 0.68, "exact_match": 0.55},
    }
    (axis,) = drawn(plots.answer_scores(scores)).axes
    assert {"71.0", "60.0", "68.0", "55.0"} <= texts(axis)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["exact match", "F1"]


def test_sizes() -> None:
    table = pd.DataFrame({"file_mb": [91.0, 23.0], "zipped_mb": [84.0, 9.5]}, index=["a", "b"])
    (axis,) = drawn(plots.sizes(table)).axes
    assert {"91.0", "23.0", "84.0", "9.5"} <= texts(axis)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["as it is", "zipped"]


def test_bubbles_give_models_shades_and_engines_shapes() -> None:
    table = timings(
        ("dense", "onnxruntime", 18.0), ("dense", "deepsparse", 17.0), ("int8", "deepsparse", 4.0)
    )
    (axis,) = drawn(plots.bubbles(table, "batch 1")).axes
    assert len(axis.collections) == 3
    named = [text.get_text() for text in axis.get_legend().get_texts()]
    assert named == ["onnxruntime", "deepsparse", "dense", "int8"]


def test_bubbles_without_an_engine() -> None:
    """Where DeepSparse is missing its rows are dropped before; the rest is drawn."""
    table = timings(("dense", "onnxruntime", 18.0), ("int8", "onnxruntime", 25.0))
    (axis,) = drawn(plots.bubbles(table, "batch 1")).axes
    named = [text.get_text() for text in axis.get_legend().get_texts()]
    assert named == ["onnxruntime", "dense", "int8"]


def test_bubbles_of_one_row() -> None:
    drawn(plots.bubbles(timings(("dense", "onnxruntime", 18.0)), "batch 1"))


@pytest.mark.parametrize("name", ["minilm-6layers_prune80", "minilm-6layers_prune80_quant"])
def test_schedule(name: str) -> None:
    figure = plots.schedule(load_recipe(name, num_epochs=2))
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    assert all(axis.get_ylabel() for axis in figure.axes)
    assert any("epoch" in axis.get_xlabel() for axis in figure.axes)


def test_real_texts_shows_lengths_beside_two_bars_a_model_and_engine() -> None:
    lengths = TextLengths("data", 64, [0] * 10 + [3] * 20 + [1] * 35, 0, [16, 32, 64])
    rows = [
        ("dense", "onnxruntime", "one length", 9.0), ("dense", "onnxruntime", "buckets", 5.0),
        ("sparse", "deepsparse", "one length", 3.0), ("sparse", "deepsparse", "buckets", 1.5),
        ("broken", "openvino", "one length", None), ("broken", "openvino", "buckets", None),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["model", "engine", "padding", "mean_ms"])
    left, right = drawn(speed_plots.real_texts(lengths, table)).axes
    assert texts(left) == {"16", "32", "64"}
    assert sum(bar.get_height() for bar in left.patches) == pytest.approx(100)
    assert texts(right) == {"9.0", "5.0", "3.0", "1.5"}
    names = [text.get_text() for text in right.get_yticklabels()]
    assert names == ["sparse, deepsparse", "dense, onnxruntime"]
    shown = [text.get_text() for text in right.get_legend().get_texts()]
    assert shown == ["padded to 64", "padded to 16, 32, 64"]


def test_text_lengths_has_a_line_where_texts_are_cut() -> None:
    lengths = TextLengths("data", 64, [0] * 10 + [3] * 20 + [1] * 35, 5, [64])
    (axis,) = drawn(speed_plots.text_lengths(lengths)).axes
    assert texts(axis) == {"64", "5.3% are longer, and are cut to fit"}
    assert sum(bar.get_height() for bar in axis.patches) == pytest.approx(100)


def test_heat_map_has_a_row_for_every_pair_and_a_column_for_every_shape() -> None:
    rows = [
        ("dense", "onnxruntime", 1, 128, 14.0), ("dense", "onnxruntime", 16, 128, 190.0),
        ("sparse", "deepsparse", 1, 128, 3.5), ("sparse", "deepsparse", 16, 128, None),
    ]  # fmt: skip
    columns = ["model", "engine", "batch_size", "sequence_length", "median_ms"]
    axis = drawn(plots.heat_map(pd.DataFrame(rows, columns=columns))).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == [
        "sparse, deepsparse", "dense, onnxruntime"
    ]  # fmt: skip
    assert len(axis.get_xticklabels()) == 2
    assert [t.get_text() for t in axis.texts] == [
        "4.0x\n3.5 ms", "-", "1.0x\n14.0 ms", "1.0x\n190.0 ms"
    ]  # fmt: skip


def test_the_roofline_shows_every_row_below_both_roofs() -> None:
    rows = [("dense", "onnxruntime", 14.0, 2.9, 67.0), ("sparse", "deepsparse", 3.5, 2.9, 266.0)]
    columns = ["model", "engine", "median_ms", "operations", "operations_a_byte"]
    (axis,) = drawn(speed_plots.roofline(pd.DataFrame(rows, columns=columns), PEAKS)).axes
    paces = [float(points.get_offsets()[0][1]) for points in axis.collections]
    assert paces == pytest.approx([2900 / 14, 2900 / 3.5])
    assert [max(line.get_ydata()) for line in axis.lines] == [200.0, 800.0]
    assert texts(axis) == {"fp32: 200", "int8: 800"}


def test_time_by_part_is_one_bar_a_column_with_its_sum() -> None:
    table = pd.DataFrame({"dense, a": [3.0, 1.0], "sparse, b": [0.5, 1.0]}, index=["x", "y"])
    (axis,) = drawn(speed_plots.time_by_part(table)).axes
    assert len(axis.patches) == 4
    assert texts(axis) == {"4.0", "1.5"}
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["x", "y"]
