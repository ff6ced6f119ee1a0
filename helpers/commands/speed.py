"""Measure what the CPU settings gain: milliseconds a training step, and the accuracy with each.

The settings take turns in one run, so that noise falls on all alike.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from helpers.commands import parse, print_json
from helpers.commands.arguments import JsonArgument, flag

if TYPE_CHECKING:
    from helpers.tasks import Task

PLAIN = {"bf16": False, "optim": "adamw_torch", "group_by_length": False}
# One step after the other, from the Trainer's own settings to this project's.
SETTINGS = {
    "Trainer defaults": PLAIN,
    "fused AdamW": PLAIN | {"optim": "adamw_torch_fused"},
    "and batches of like length": {"bf16": False},
    "and quick dropout": {"bf16": False},
    "and bf16 autocast": {"bf16": True},
    "this project's defaults": {},
}
TORCH_DROPOUT = list(SETTINGS)[:3]


@dataclass
class SpeedArguments:
    """How long to measure."""

    task_name: str = flag("docs-library", "'docs-library' (embedded), 'sst2', or a hub data set")
    rounds: int = flag(5, "how many turns each setting gets")
    steps: int = flag(16, "training steps of a turn")
    accuracy: bool = flag(False, "also train once to the end with the first and the last setting")
    store: bool = flag(False, "write results/training_speed.json")


def main(argv: list[str]) -> int:
    """Print the median step of every setting, and the accuracies if asked."""
    from helpers import environment, results, tiers
    from helpers.tasks import load_task

    asked, output = parse("speed", (SpeedArguments, JsonArgument), argv)
    task = load_task(asked.task_name)
    rows = asked.steps * tiers.current().batch_size
    steps = {name: [] for name in SETTINGS}
    for _ in range(asked.rounds):
        for name in SETTINGS:
            run = train(
                task.shortened(rows, 32), name, evaluation_strategy="no", max_steps=asked.steps
            )
            seconds = next(h["train_runtime"] for h in run["history"] if "train_runtime" in h)
            steps[name].append(1000 * seconds / run["steps"])
    found = {"task": asked.task_name, "tier": tiers.current().name, "rounds": asked.rounds}
    found["ms_a_step"] = {
        name: {"median": round(median(ms)), "least": round(min(ms)), "most": round(max(ms))}
        for name, ms in steps.items()
    }
    if asked.accuracy:
        ends = [next(iter(SETTINGS)), next(reversed(SETTINGS))]
        runs = {name: train(task, name) for name in ends}
        found["accuracy"] = {name: run["metrics"]["accuracy"] for name, run in runs.items()}
        found["minutes"] = {name: run["minutes"] for name, run in runs.items()}
    print(json.dumps(found, indent=1))
    if asked.store:
        command = f"python -m helpers speed {' '.join(argv)}"
        file = results.FOLDER / "training_speed.json"
        content = {"command": command, **found, **environment.describe()}
        file.write_text(json.dumps(content, indent=1) + "\n")
    print_json(output.json, found)
    return 0


def train(task: "Task", name: str, **settings: str | int) -> dict[str, Any]:
    """Fine-tune the embedded model with one of the settings; return the content of `run.json`."""
    from helpers import path
    from helpers.training import fine_tune

    dropout = torch_dropout() if name in TORCH_DROPOUT else nullcontext()
    with tempfile.TemporaryDirectory() as folder, dropout:
        sizes = {**path.settings("dense"), "disable_tqdm": True, **settings, **SETTINGS[name]}
        return fine_tune(task, "minilm", Path(folder) / "run", **sizes).run


@contextmanager
def torch_dropout() -> Iterator[None]:
    """Let models keep the dropout they come with."""
    from helpers import trainer

    quicken, trainer.quicken_dropout = trainer.quicken_dropout, lambda model: None
    try:
        yield
    finally:
        trainer.quicken_dropout = quicken
