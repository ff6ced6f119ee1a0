"""What a checkpoint noted when it was trained, so that no flag has to say it again."""

import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from helpers.commands import given
from helpers.commands.arguments import DataArguments
from helpers.text_tasks import KINDS

# Flags that say which data is meant; one of them typed, and those of the run do not count.
PLACES = ("dataset_name", "task_name", "train_file", "validation_file")


def recorded(folder: str | None) -> dict[str, Any]:
    """Return the run of a checkpoint's folder; nothing where it is none."""
    note = Path(folder or "") / "run.json"
    if not note.is_file():
        return {}  # `Checkpoint.load` will say what is wrong with it.
    with suppress(ValueError):
        return json.loads(note.read_text())
    return {}


def recorded_of(argv: list[str]) -> dict[str, Any]:
    """Return the run of what was typed as `--model_name_or_path`."""
    return recorded(given(argv, "model_name_or_path").get("model_name_or_path"))


def recorded_flags(
    run: dict[str, Any], data_type: type[DataArguments], argv: list[str]
) -> dict[str, Any]:
    """Return what a run says about its data; not where it lies, if that is typed."""
    named = {"dataset_name": run.get("task")} | run.get("data", {})
    known = run if given(argv, *PLACES) else named | run
    # Other rows of the same kind may look like another: whole numbers among scores.
    types = {kind.__name__: name for name, kind in KINDS.items()}
    if run.get("kind") in types:
        known = {"problem_type": types[run["kind"]]} | known
    return {f.name: known[f.name] for f in fields(data_type) if f.name in known}
