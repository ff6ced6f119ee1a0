"""Where the time of a training step goes, part by part, with the Trainer that really trains.

Each part is timed where it is called, and what runs inside another part is taken out of that, so
the parts of a step add up to it.
"""

import functools
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from sparseml.transformers.sparsification.training_args import TrainingArguments
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, set_seed

from helpers import models, path, starts, tiers
from helpers.requests import Request
from helpers.trainer import DEFAULTS, RecipeTrainer, default_bf16, make_trainer
from helpers.training_rows import encoded

if TYPE_CHECKING:
    from helpers.stops import Checkpoint
    from helpers.tasks import Task

PARTS = (
    *("input", "forward", "fake quantization", "teacher", "backward"),
    *("masks and schedule", "optimizer", "other"),
)
# SparseML's manager, by what the Trainer and the optimizer call.
MANAGER = ("update", "optimizer_pre_step", "optimizer_post_step")


@dataclass
class Clock:
    """Adds up seconds by part; time inside another part counts for the inner one only."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    inner: list[float] = field(default_factory=list)

    def timed(self, part: str, function: Callable) -> Callable:
        """Return a function that does the same and is timed."""

        # The Trainer reads from the signature which columns to keep.
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function
            self.inner.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                self.seconds[part] += took - self.inner.pop()
                if self.inner:
                    self.inner[-1] += took

        return run

    def watch(self, owner: object, names: Iterable[str], part: str) -> None:
        """Time some methods of an object from now on."""
        for name in names:
            setattr(owner, name, self.timed(part, getattr(owner, name)))


@dataclass(frozen=True)
class Stage:
    """One kind of training step.

    Attributes:
        recipe: None for a plain fine-tune.
        taught: whether the dense model teaches.
        skipped: share of the run before the first step that counts.
        epochs: of the recipe; None for the tier's, of which the beginning is run.
    """

    recipe: str | None = None
    taught: bool = False
    skipped: float = 0.01
    epochs: float | None = None


# Masks change as often as in a whole run; int8 comes late in a recipe, so that one is run whole.
STAGES = {
    "dense": Stage(),
    "pruning": Stage("minilm-6layers_prune80", skipped=0.06),
    "pruning, taught": Stage("minilm-6layers_prune80", taught=True, skipped=0.06),
    "sparse transfer": Stage("minilm-6layers_transfer"),
    "int8": Stage("minilm-6layers_quant", epochs=1.0),
}


class StepTimes(TrainerCallback):
    """Writes down the parts of each step, and ends the run when there are enough."""

    def __init__(self, clock: Clock, network: nn.Module, stage: Stage, steps: int) -> None:
        self.clock, self.network, self.stage, self.steps = clock, network, stage, steps
        self.rows: list[dict[str, float]] = []
        self.watched: set[int] = set()
        self.ended = time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock of the first step's input."""
        self.ended = time.perf_counter()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What has passed since the last step was spent on getting the batch."""
        self.clock.seconds["input"] += time.perf_counter() - self.ended
        for module in self.network.modules():
            if (
                isinstance(module, torch.ao.quantization.FakeQuantize)
                and id(module) not in self.watched
            ):
                self.watched.add(id(module))
                self.clock.watch(module, ["forward"], "fake quantization")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the row of this step."""
        now = time.perf_counter()
        row = {part: self.clock.seconds[part] for part in PARTS}
        row["other"] = now - self.ended - sum(row.values())
        # Of a recipe that quantizes, only the steps in int8 are asked for.
        counts = state.global_step > self.stage.skipped * state.max_steps
        if counts and (self.watched or "quant" not in (self.stage.recipe or "")):
            self.rows.append({part: 1000 * took for part, took in row.items()})
        self.clock.seconds.clear()
        self.ended = now
        control.should_training_stop |= len(self.rows) >= self.steps


def profile(task: "Task", rounds: int = 2, steps: int = 12) -> dict[str, dict[str, float]]:
    """Time training steps of every stage, in turns, so that noise falls on all alike.

    Args:
        task: what is trained on; its stops `dense` and `upstream80` are made if they are missing.
        rounds: turns of each stage.
        steps: steps timed in a turn.

    Returns:
        Stage to part to milliseconds, the mean over all steps: a mask is new in some of them only.
    """
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in STAGES}
    dense = path.checkpoint("dense", task)
    for _ in range(rounds):
        for name, stage in STAGES.items():
            rows[name] += timed_steps(task, stage, dense, steps)
    return {
        name: {part: round(fmean(row[part] for row in found), 2) for part in PARTS}
        for name, found in rows.items()
    }


def timed_steps(
    task: "Task", stage: Stage, dense: "Checkpoint", steps: int
) -> list[dict[str, float]]:
    """Train for some steps of a stage; return part to milliseconds for each that counts."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(few_rows(task, stage, steps), stage, dense, Path(folder))
        clock = Clock()
        times = StepTimes(clock, trainer.model, stage, steps)
        watch(trainer, clock)
        trainer.add_callback(times)
        trainer.train()
    return times.rows


def few_rows(task: "Task", stage: Stage, steps: int) -> "Task":
    """Return the task, or for a recipe that is run whole as many rows as that needs."""
    if stage.epochs is None:
        return task.shortened(None, 64)
    # The last third of `minilm-6layers_quant` is in int8.
    enough = math.ceil(3.2 * steps / stage.epochs) + 4
    return task.shortened(enough * tiers.current().batch_size, 64)


def trainer_of(task: "Task", stage: Stage, dense: "Checkpoint", folder: Path) -> RecipeTrainer:
    """Return the Trainer that `fine_tune` would make for a stage."""
    from helpers.recipes import load_recipe
    from helpers.teaching import taught

    start: str | Checkpoint = dense if stage.recipe else "minilm"
    if stage.recipe and "transfer" in stage.recipe:
        start = path.upstream()
    recipe = None
    if stage.recipe:
        length = stage.epochs or tiers.current().recipe_epochs
        recipe = load_recipe(stage.recipe, num_epochs=length)
    teacher = dense if stage.taught else None
    recipe = taught(recipe, teacher, None, None, task)
    sizes = {**path.settings("dense"), "disable_tqdm": True, "evaluation_strategy": "no"}
    # Sorted by length, the first batches are the longest, and stages skip unlike numbers of them.
    sizes["group_by_length"] = False
    args = TrainingArguments(output_dir=str(folder), **{**DEFAULTS, **sizes})
    args.num_train_epochs = recipe.num_epochs if recipe else args.num_train_epochs
    set_seed(args.seed)
    rows = encoded(task, models.load_tokenizer(models.tokenizer_source(start)))
    network = starts.build(start, task)
    asked = Request(task, args, start, recipe, teacher)
    return make_trainer(folder, asked, network, rows, default_bf16())


def watch(trainer: RecipeTrainer, clock: Clock) -> None:
    """Put the clock on every part that is there before the first step."""
    clock.watch(trainer.model, ["forward"], "forward")
    clock.watch(trainer.accelerator, ["backward"], "backward")
    if isinstance(trainer.teacher, nn.Module):
        clock.watch(trainer.teacher, ["forward"], "teacher")
    if trainer.manager:
        clock.watch(trainer.manager, MANAGER, "masks and schedule")
        clock.watch(trainer.manager, ["loss_update"], "teacher")
    # Not before the schedule is there: Torch's takes `step` for a method, which ours is not.
    make = trainer.create_optimizer_and_scheduler

    def create(num_training_steps: int) -> None:
        make(num_training_steps)
        wrapper = getattr(trainer.optimizer, "_wrapper", None)
        base = wrapper.wrapped_optimizer if wrapper else trainer.optimizer
        clock.watch(base, ["step"], "optimizer")

    trainer.create_optimizer_and_scheduler = create
