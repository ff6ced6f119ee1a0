"""Flags that several commands share, named as in the Transformers example scripts."""

from dataclasses import dataclass, field, replace

from helpers import tiers
from helpers.errors import UserError
from helpers.tasks import Task, load_task


def flag(default: object, text: str) -> object:
    """Return a dataclass field with its help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class DataArguments:
    """Which data a command works on."""

    task_name: str = flag("docs-library", "'docs-library' (embedded), 'sst2', or a hub data set")
    train_file: str | None = flag(None, "csv, tsv, json or jsonl file to train on")
    validation_file: str | None = flag(None, "csv, tsv, json or jsonl file to measure on")
    text_column: str | None = flag(None, "column of the texts, if it has no usual name")
    label_column: str | None = flag(None, "column of the labels, if it has no usual name")
    max_seq_length: int = flag(128, "tokens kept of a text")
    max_train_samples: int | None = flag(None, "train on so many rows only")
    max_eval_samples: int | None = flag(None, "measure on so many rows only")

    def load(self) -> Task:
        """Return the task these flags name, whole unless `max_*_samples` say otherwise."""
        for name in ("max_seq_length", "max_train_samples", "max_eval_samples"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"--{name} is {value}. Expected 1 or more.")
        size = replace(
            tiers.TIERS["full"],
            train_examples=self.max_train_samples,
            validation_examples=self.max_eval_samples,
        )
        return load_task(
            self.task_name,
            train_file=self.train_file,
            validation_file=self.validation_file,
            text_column=self.text_column,
            label_column=self.label_column,
            max_seq_length=self.max_seq_length,
            tier=size,
        )


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
