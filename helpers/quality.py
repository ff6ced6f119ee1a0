"""What a timed model is worth: its accuracy and its size, from the folder it lies in.

Why: a speed without the accuracy it was bought with is no offer.

How: an export notes the metrics of the checkpoint it was proven to be, and dense int8 its own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import stops
from helpers.engine_child import OPENVINO_FILE
from helpers.errors import UserError
from helpers.exercises import zipped_size
from helpers.inspection import weight_files

if TYPE_CHECKING:
    import pandas as pd


def metrics_of(model: Path) -> dict[str, float]:
    """Return a model's validation metrics; none if its folder holds no note of them.

    Args:
        model: the folder of a checkpoint, an export or an int8 peer, or a file in it.
    """
    folder = model if model.is_dir() else model.parent
    for name in stops.NOTES:
        if (folder / name).is_file():
            return stops.read_note(folder, name).get("metrics", {})
    return {}


def size_of(model: Path) -> int:
    """Return the zipped bytes of a model: one ONNX file, or the weights of a folder."""
    if model.is_file():
        return zipped_size(model)
    weights = ["model.onnx"] if (model / "model.onnx").is_file() else [OPENVINO_FILE, "model.bin"]
    found = [model / name for name in weights if (model / name).is_file()]
    return sum(zipped_size(file) for file in found or weight_files(model))


def accuracies(models: Mapping[str, Path]) -> dict[str, float]:
    """Return name to main metric (0 to 1) of the models of which one is known.

    Raises:
        UserError: no model's folder tells a metric.
    """
    metrics: dict[str, dict[str, Any]] = {name: metrics_of(path) for name, path in models.items()}
    known = {name: next(iter(found.values())) for name, found in metrics.items() if found}
    if not known:
        raise UserError("No folder of these models tells an accuracy. Export a trained checkpoint.")
    return known


def with_quality(table: "pd.DataFrame", models: Mapping[str, Path]) -> "pd.DataFrame":
    """Add accuracy (0 to 1) and zipped size (MB) to timings; rows without either are dropped.

    Args:
        table: as from `benchmark.as_table`.
        models: what was timed, by the names in the table.

    Raises:
        UserError: no model's folder tells a metric.
    """
    accuracy = accuracies(models)
    sizes = {name: size_of(models[name]) / 1e6 for name in accuracy}
    done = table[table.error.isna() & table.model.isin(list(accuracy))]
    return done.assign(accuracy=done.model.map(accuracy), zipped_mb=done.model.map(sizes))
