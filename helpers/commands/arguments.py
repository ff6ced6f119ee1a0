"""Flags that several commands share, named as in the Transformers example scripts."""

import os
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self

from helpers import compat, sources, tiers
from helpers.errors import UserError
from helpers.tasks import Task, load_task

if TYPE_CHECKING:
    from sparseml.transformers.sparsification.training_args import TrainingArguments

FORMAT_HELP = (
    "form of an int8 model: 'deepsparse', 'qdq' (OpenVINO and ONNX Runtime run it in int8), 'both'"
)

# How the flags begin that say how much of the data is used, and how fast it is read.
SIZES = ("max_", "preprocessing_")


def flag(default: object, text: str) -> object:
    """Return a dataclass field with its help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class ModelArguments:
    """What is trained, and what it learns from."""

    model_name_or_path: str = flag("minilm", "'minilm' (embedded), a folder, or a hub name")
    cache_dir: str | None = flag(None, "where models and data from the hub are kept")
    distill_hardness: float | None = flag(None, "weight of the teacher, 0 to 1 (1.0)")
    distill_temperature: float | None = flag(None, "softening of the compared answers (2.0)")
    dropout: float | None = flag(None, "share left out in training (the model's own)")
    onnx_export_path: str | None = flag(None, "folder for the proven ONNX export")
    onnx_export_format: str = flag("deepsparse", FORMAT_HELP)


@dataclass
class DataArguments:
    """Which data a command works on, whatever the kind of task."""

    dataset_name: str | None = flag(None, "an embedded or well-known set, or a hub data set")
    train_file: str | None = flag(None, "file to train on")
    validation_file: str | None = flag(None, "file to measure on")
    max_seq_length: int = flag(128, "tokens kept of a text")
    max_train_samples: int | None = flag(None, "train on so many rows only")
    max_eval_samples: int | None = flag(None, "measure on so many rows only")
    preprocessing_num_workers: int | None = flag(None, "threads that turn texts into tokens")

    def load(self) -> Task:
        """Return the task these flags name, whole unless `max_*_samples` say otherwise."""
        raise NotImplementedError

    def load_for(self, model: ModelArguments, args: "TrainingArguments") -> Task:
        """Return the task; most kinds depend neither on the model nor on its training."""
        return self.load()

    def origin(self) -> dict[str, Any]:
        """Return the flags that name this data again from any folder, sizes left out."""
        defaults = {f.name: f.default for f in fields(self)}
        return {
            name: whole_paths(value) if name.endswith("_file") else value
            for name, value in vars(self).items()
            if value != defaults[name] and not name.startswith(SIZES)
        }

    def measured(self) -> Self:
        """Return what a finished model needs: its rows to train on are the ones to measure on."""
        return replace(self, train_file=self.train_file or self.validation_file)

    def title(self, embedded: str) -> str:
        """Return the data's name: as given, else its file's, else that of the embedded set."""
        file = self.train_file or self.validation_file
        return self.dataset_name or (sources.several(file)[0].stem if file else embedded)

    def tier(self) -> tiers.Tier:
        """Return the sizes these flags ask for.

        Raises:
            UserError: for a size below 1.
        """
        for name, value in vars(self).items():
            if name.startswith(SIZES) and value is not None and value < 1:
                raise UserError(f"--{name} is {value}. Expected 1 or more.")
        if self.preprocessing_num_workers:
            # The tokenizer's own threads; it reads both when it is first used.
            os.environ["TOKENIZERS_PARALLELISM"] = "true"
            os.environ["RAYON_NUM_THREADS"] = str(self.preprocessing_num_workers)
        return replace(
            tiers.TIERS["full"],
            train_examples=self.max_train_samples,
            validation_examples=self.max_eval_samples,
        )


@dataclass
class TextArguments(DataArguments):
    """Which texts, or pairs of texts, with which labels."""

    task_name: str | None = flag(None, "as --dataset_name: 'docs-library' (embedded), 'sst2', ...")
    text_column: str | None = flag(None, "column of the texts, if it has no usual name")
    text_pair_column: str | None = flag(None, "column of the second texts, if there are pairs")
    label_column: str | None = flag(None, "column of the labels, if it has no usual name")
    problem_type: str | None = flag(
        None,
        "single_label_classification, multi_label_classification or regression; "
        "if not given, what the labels look like",
    )

    def load(self) -> Task:
        """Return the task these flags name."""
        return load_task(
            self.task_name or self.title("docs-library"),
            train_file=self.train_file,
            validation_file=self.validation_file,
            text_column=self.text_column,
            text_pair_column=self.text_pair_column,
            label_column=self.label_column,
            problem_type=self.problem_type,
            max_seq_length=self.max_seq_length,
            tier=self.tier(),
        )


def whole_paths(text: str) -> str:
    """Return a file's path from the root, or those of several between commas."""
    return ",".join(compat.absolute(file) for file in sources.several(text))


@dataclass
class JsonArgument:
    """How a command ends."""

    json: bool = flag(False, "print one JSON object as the last line")


def recipe_variables(text: str | None) -> dict[str, float | str]:
    """Read `--recipe_args`: `num_epochs=3,init_lr=1e-4` or a JSON object.

    Raises:
        UserError: for anything else.
    """
    from sparseml.optim import parse_recipe_variables

    try:
        variables = parse_recipe_variables(text) if text else {}
    except ValueError:
        variables = None
    if isinstance(variables, dict):
        return variables
    raise UserError(
        f"--recipe_args {text!r} cannot be read. "
        "Expected name=value pairs with commas between them, or a JSON object."
    )
