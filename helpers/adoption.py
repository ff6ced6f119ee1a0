"""Take a finished model that this project did not train: a folder or a hub name, with its head."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import models, weights
from helpers.errors import UserError, unreachable
from helpers.stops import Checkpoint, sha256

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from helpers.tasks import Task

# Nothing of a hub repository but what is read here; above all no pickles of other frameworks.
FILES = ["*.json", "*.txt", "recipe.yaml", "model.safetensors", "pytorch_model.bin"]


def adopt(name: str | Path, task: "Task") -> Checkpoint:
    """Return somebody's finished model as a checkpoint of `task`; its weights are not touched.

    Args:
        name: a folder, or a hub name where there is a network.
        task: what it is said to have been trained for.

    Raises:
        UserError: no such model, another head than the task's, or other labels.
    """
    folder = fetch(models.resolve_model(name))
    try:
        config, state = models.load_config(folder), weights.read(folder)
    except Exception as error:  # json, safetensors, pickle and zip errors share no base class
        raise unreachable(folder, "model", error) from error
    found, needed = (config.architectures or ["none"])[0], models.architecture(task.head)
    models.model_class(config, folder)
    if found != needed:
        raise UserError(
            f"{name} is a {found}; {task.name} needs a {needed}. "
            "Give a model that was fine-tuned on this kind of task."
        )
    file = weights.file_of(folder)
    return Checkpoint(
        folder,
        {
            "task": task.name,
            "kind": type(task).__name__,
            "labels": labels(name, config, task),
            "max_seq_length": task.max_seq_length,
            "metrics": {},
            "quantized_modules": sum(key.endswith("weight_fake_quant.scale") for key in state),
            "files": {file.name: sha256(file)},
        },
    )


def fetch(source: str) -> Path:
    """Return the folder itself, or the one the hub's files were loaded into."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=FILES))
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        raise unreachable(source, "model", error) from error


def labels(name: str | Path, config: "PretrainedConfig", task: "Task") -> list[str]:
    """Return the task's labels if the model's config does not contradict them.

    Raises:
        UserError: if it has another number of labels, or others, or the same in another order.
    """
    if not task.labels:
        return []
    named: list[Any] = [config.id2label[number] for number in sorted(config.id2label)]
    nameless = all(str(label).startswith("LABEL_") for label in named)
    if named == task.labels or (nameless and len(named) == len(task.labels)):
        return task.labels
    raise UserError(
        f"{name} answers {named[:4]}, {task.name} asks for {task.labels[:4]}. "
        "Give a model that was fine-tuned on this task."
    )
