"""The tutorial's path: which stop is made from which, so that any notebook can start anywhere.

`checkpoint("prune80", task)` opens the stored stop or makes it, and what it stands on, first.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from helpers import environment, tiers
from helpers.environment import runs_folder
from helpers.errors import UserError
from helpers.requests import identity
from helpers.stops import Checkpoint, OnnxModel
from helpers.tasks import Task
from helpers.upstream import Upstream, dense_model, load_upstream

if TYPE_CHECKING:
    from helpers.benchmark import Measurement


@dataclass(frozen=True)
class Step:
    """How one stop is made.

    Attributes:
        start: the stop, or the plain model, it is trained from.
        recipe: name of the recipe; None for a plain fine-tune.
        teacher: the stop whose answers it learns from.
        hardness: weight of the teacher against the labels; 1.0 if None.
        epochs: which of the tier's lengths it has.
        notebook: where a reader meets it.
    """

    start: str
    notebook: str
    recipe: str | None = None
    teacher: str | None = None
    hardness: float | None = None
    epochs: str = "recipe_epochs"


STEPS = {
    "dense": Step("minilm", "01_baseline_fine_tune", epochs="dense_epochs"),
    "prune80": Step("dense", "02_prune_with_recipe", "minilm-6layers_prune80"),
    "prune80_quant": Step("prune80", "03_quantize", "minilm-6layers_quant", epochs="quant_epochs"),
    "prune80_quant_distill": Step(
        "prune80",
        "04_distill",
        "minilm-6layers_quant",
        teacher="dense",
        hardness=0.5,
        epochs="quant_epochs",
    ),
    "prune90_quant_distill": Step(
        "dense",
        "05_export_onnx",
        "minilm-6layers_prune90_quant",
        teacher="dense",
        epochs="blocks_epochs",
    ),
    "transfer80": Step(
        "upstream80", "07_sparse_transfer", "minilm-6layers_transfer", epochs="transfer_epochs"
    ),
}
# What is pruned before any task, by which recipe.
UPSTREAM = {
    "upstream80": Step("minilm", "07_sparse_transfer", "minilm-6layers_upstream80"),
    "upstream90": Step("upstream80", "07_sparse_transfer", "minilm-6layers_upstream90"),
}

BENCHMARKED = ("dense", "prune80", "prune80_quant_distill", "prune90_quant_distill")
# PyTorch runs checkpoints, not ONNX files; it has no int8 products, so only fp32 stops.
ON_TORCH = ("dense", "prune80")
TORCH_SUFFIX = " (checkpoint)"
SEQUENCE_LENGTH = 128


def folder(task: Task, stop: str) -> Path:
    """Return where a stop of this task lies at the current size."""
    return runs_folder() / task.name / tiers.current().name / stop


def epochs(step: Step) -> float:
    """Return how long a step trains at the current size."""
    return getattr(tiers.current(), step.epochs)


def settings(stop: str) -> dict[str, float]:
    """Return the training arguments of a stop that depend on the size of the run."""
    tier = tiers.current()
    return {
        "num_train_epochs": epochs(STEPS[stop]),
        "per_device_train_batch_size": tier.batch_size,
        "learning_rate": tier.learning_rate,
    }


def checkpoint(stop: str, task: Task) -> Checkpoint:
    """Open the stored checkpoint of a stop, or make the missing one and say so.

    Raises:
        UserError: for a name that is no stop; whatever `fine_tune` raises while making it.
    """
    if stop not in STEPS:
        raise UserError(f"No stop {stop!r}. The path has {', '.join(STEPS)}.")
    place = folder(task, stop)
    if not (place / "run.json").is_file():
        print(
            f"{stop}: not there yet, making it now (notebook {STEPS[stop].notebook} explains it)."
        )
        return make(stop, task)
    found = Checkpoint.load(place)
    check_origin(found, STEPS[stop], task)
    return found


def check_origin(found: Checkpoint, step: Step, task: Task) -> None:
    """Refuse a stored stop whose data, starting point or teacher has been made anew since.

    Raises:
        UserError: naming what changed.
    """
    asked = found.run["request"]
    changed = []
    if asked["data"] != task.fingerprint:
        changed.append("data")
    for key, stop in (("start", step.start), ("teacher", step.teacher)):
        if stop is None:
            continue
        places = [found.folder.with_name(stop)]
        if stop in UPSTREAM:
            places = sorted(upstream_folder().glob(f"*/{stop}"))
        there = [identity(Checkpoint.load(p)) for p in places if (p / "run.json").is_file()]
        changed += [f"{key} ({stop})"] if there and asked[key] not in there else []
    if not changed:
        return
    raise UserError(
        f"{found.folder} was trained on other {' and '.join(changed)} than there is now. "
        "Delete that folder, or set TUTORIAL_RUNS to a new one."
    )


def make(stop: str, task: Task) -> Checkpoint:
    """Train a stop, and first whatever it starts or learns from."""
    from helpers.recipes import load_recipe
    from helpers.training import fine_tune

    step = STEPS[stop]
    return fine_tune(
        task,
        starting_point(step.start, task),
        folder(task, stop),
        recipe=load_recipe(step.recipe, num_epochs=epochs(step)) if step.recipe else None,
        distill_teacher=checkpoint(step.teacher, task) if step.teacher else None,
        distill_hardness=step.hardness,
        **settings(stop),
    )


def starting_point(name: str, task: Task) -> str | Checkpoint:
    """Return what a stop is trained from: another stop, a sparse encoder, or the plain model."""
    if name in UPSTREAM:
        return upstream(name)
    return checkpoint(name, task) if name in STEPS else name


def upstream_folder() -> Path:
    """Return where encoders lie that were pruned at the current size, by the texts they read."""
    return runs_folder() / "upstream" / tiers.current().name


def upstream(name: str = "upstream80", texts: Upstream | None = None) -> Checkpoint:
    """Open or make the encoder that is sparse before it has a task.

    Args:
        name: one of `UPSTREAM`.
        texts: what it is pruned on; the embedded ones, at the current size, if None.
    """
    from helpers.recipes import load_recipe
    from helpers.training import fine_tune

    texts, step = texts or load_upstream("docs-library"), UPSTREAM[name]
    start, variables = texts.dense, {"num_epochs": tiers.upstream().epochs}
    if step.start in UPSTREAM:
        start = upstream(step.start, texts)
        # Its first mask cuts again what is cut already, so half of the epochs do.
        reached = load_recipe(UPSTREAM[step.start].recipe).variables["final_sparsity"]
        variables = {"num_epochs": variables["num_epochs"] / 2, "init_sparsity": reached}
    return fine_tune(
        texts,
        start,
        upstream_folder() / texts.name.replace("/", "--") / name,
        recipe=load_recipe(step.recipe, **variables),
        distill_teacher=dense_model(texts),
        per_device_train_batch_size=tiers.current().batch_size,
    )


def onnx_folder(task: Task, stop: str) -> Path:
    """Return where the export of a stop lies."""
    return folder(task, stop).with_name(f"{stop}-onnx")


def onnx_model(stop: str, task: Task) -> OnnxModel:
    """Open the stored export of a stop, or make the missing one and say so."""
    from helpers.export import export_onnx, reuse

    place, source = onnx_folder(task, stop), checkpoint(stop, task)
    if found := reuse(place, source):
        return found
    print(f"{stop}: no ONNX file yet, exporting it now (notebook 05_export_onnx explains it).")
    return export_onnx(source, task, place, overwrite=True)


def portable(stop: str, task: Task) -> OnnxModel:
    """Open or make the export of an int8 stop in both forms, for every engine the one it likes."""
    from helpers.export import export_onnx, files_of, reuse

    place, source = folder(task, f"{stop}-both"), checkpoint(stop, task)
    if found := reuse(place, source, files_of("both", quantized=True)):
        return found
    return export_onnx(source, task, place, form="both", overwrite=True)


def dense_int8(task: Task) -> Path:
    """Open or make the dense model in int8 without training, for OpenVINO; return its folder."""
    from helpers import peers

    place, dense = folder(task, "dense-nncf"), checkpoint("dense", task)
    if not peers.is_made(place, dense):
        peers.quantize_after_training(dense, task, place, method="nncf", overwrite=True)
    return place


def benchmark(task: Task, stops: list[str]) -> "list[Measurement]":
    """Time the exported stops on every engine, batch 1 and 16, and store the measurements.

    A round of batch 16 takes many times as long as one of batch 1, so there are fewer of them, but
    at least 3. Half as many at most only warm up.
    """
    from helpers import benchmark as bench

    models = {name: onnx_model(name, task).file for name in stops}
    on_torch = [name for name in ON_TORCH if name in stops]
    models |= {name + TORCH_SUFFIX: checkpoint(name, task).folder for name in on_torch}
    rounds = tiers.current().benchmark_rounds
    measured = []
    for batch_size, share in ((1, 1), (16, 6)):
        counted = max(3, rounds // share)
        measured += bench.measure(
            models,
            ("deepsparse", "onnxruntime", "torch"),
            batch_sizes=(batch_size,),
            sequence_length=SEQUENCE_LENGTH,
            rounds=counted,
            warmup=min(5, counted // 2),
        )
    measured = [replace(m, model=m.model.removesuffix(TORCH_SUFFIX)) for m in measured]
    place = folder(task, "dense").with_name("benchmark.json")
    bench.save(measured, place, environment.describe())
    return measured


def with_quality(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Add accuracy (0 to 1) and zipped size (MB) to a table of timings; failed rows are dropped."""
    from helpers.exercises import zipped_size

    names = table.model.unique()
    accuracy = {name: checkpoint(name, task).metrics[task.main_metric] for name in names}
    zipped = {name: zipped_size(onnx_model(name, task).file) / 1e6 for name in names}
    done = table[table.error.isna()]
    return done.assign(accuracy=done.model.map(accuracy), zipped_mb=done.model.map(zipped))


def overview(task_name: str) -> pd.DataFrame:
    """Return one row a stop: notebook, accuracy and minutes if it is stored, whether exported."""
    rows = []
    for name, step in STEPS.items():
        place = runs_folder() / task_name / tiers.current().name / name
        stored = (place / "run.json").is_file()
        run = Checkpoint.load(place).run if stored else None
        rows.append(
            {
                "stop": name,
                "notebook": step.notebook,
                "accuracy": run["metrics"].get("accuracy") if run else None,
                "training minutes": run["minutes"] if run else None,
                "exported": (place.with_name(f"{name}-onnx") / "proof.json").is_file(),
            }
        )
    return pd.DataFrame(rows)
