"""Measure what the CPU settings gain: milliseconds a training step, and the accuracy with each.

The settings take turns in one run, so that noise falls on all alike.
"""

import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from helpers.commands import parse, print_json
from helpers.commands.arguments import JsonArgument, flag
from helpers.errors import UserError

if TYPE_CHECKING:
    from helpers.stops import Checkpoint
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
AS_IT_COMES = list(SETTINGS)[:3]
ENDS = [next(iter(SETTINGS)), next(reversed(SETTINGS))]
# SparseML takes some tenths of a second to start, which no long run would notice.
LEAST_IDLE_STEPS = 64
# It lasts as long as the run and does nothing.
IDLE_RECIPE = """
num_epochs: 1.0
modifiers:
  - !EpochRangeModifier
      start_epoch: 0.0
      end_epoch: eval(num_epochs)
"""


@dataclass
class SpeedArguments:
    """How long to measure."""

    task_name: str = flag("docs-library", "'docs-library' (embedded), 'sst2', or a hub data set")
    rounds: int = flag(5, "how many turns each setting gets")
    steps: int = flag(16, "training steps of a turn (with --idle_recipe at least 64)")
    accuracy: bool = flag(False, "also train to the end with the first and the last setting")
    recipe: str | None = flag(
        None, "train with this recipe, taught by the dense model; only the first and last setting"
    )
    profile: bool = flag(False, "instead, show where the time of each kind of step goes")
    idle_recipe: bool = flag(False, "instead, time an idle recipe against Hugging Face's Trainer")
    store: bool = flag(False, "write the figures to results/")


def main(argv: list[str]) -> int:
    """Print the median step of every setting, and the accuracies if asked."""
    from helpers import environment, results, tiers
    from helpers.tasks import load_task

    asked, output = parse("speed", (SpeedArguments, JsonArgument), argv)
    if asked.rounds < 1 or asked.steps < 1:
        raise UserError("--rounds and --steps are 1 or more.")
    if sum(map(bool, (asked.recipe, asked.profile, asked.idle_recipe))) > 1:
        raise UserError("--recipe, --profile and --idle_recipe each measure their own: give one.")
    task = load_task(asked.task_name)
    work = taught_recipe(task, asked.recipe) if asked.recipe else {}
    found = {"task": asked.task_name, "tier": tiers.current().name, "rounds": asked.rounds}
    if asked.profile:
        from helpers import step_profile

        found |= {"of": "step", "ms": step_profile.profile(task, asked.rounds, asked.steps)}
    elif asked.idle_recipe:
        found |= overhead(task, asked.rounds, max(asked.steps, LEAST_IDLE_STEPS))
    else:
        found["ms_a_step"] = settings_in_turn(task, asked, work)
    if asked.accuracy:
        runs = {name: train(task, name, **work) for name in ENDS}
        found["metric"] = task.main_metric
        found[task.main_metric] = {n: run["metrics"][task.main_metric] for n, run in runs.items()}
        found["minutes"] = {name: run["minutes"] for name, run in runs.items()}
    print(json.dumps(found, indent=1))
    if asked.store:
        command = f"python -m helpers speed {' '.join(argv)}"
        results.write(figures(asked), {**found, **environment.describe()}, command)
    print_json(output.json, found)
    return 0


def figures(asked: SpeedArguments) -> str:
    """Return the name that figures of this kind are stored under."""
    if asked.profile:
        return "training_profile"
    if asked.recipe:
        return "recipe_speed"
    return "idle_recipe" if asked.idle_recipe else "training_speed"


def taught_recipe(task: "Task", name: str) -> dict[str, Any]:
    """Return arguments of `train`: a recipe from the dense model on, with that as its teacher."""
    from helpers import path, tiers
    from helpers.recipes import load_recipe

    dense = path.checkpoint("dense", task)
    recipe = load_recipe(name, num_epochs=tiers.current().recipe_epochs)
    return {"start": dense, "recipe": recipe, "distill_teacher": dense}


def settings_in_turn(
    task: "Task", asked: SpeedArguments, work: dict[str, Any]
) -> dict[str, dict[str, int]]:
    """Return median, least and most milliseconds of a training step with each setting.

    A recipe has to be run whole, so its turns are as many epochs of as many steps.
    """
    from helpers import tiers

    steps = {name: [] for name in (ENDS if work else SETTINGS)}
    length = work or {"max_steps": asked.steps}
    few = task.shortened(asked.steps * tiers.current().batch_size, 32)
    for _ in range(asked.rounds):
        for name, found in steps.items():
            run = train(few, name, evaluation_strategy="no", **length)
            found.append(ms_a_step(run["history"], run["steps"]))
    return {
        name: {"median": round(median(ms)), "least": round(min(ms)), "most": round(max(ms))}
        for name, ms in steps.items()
    }


def ms_a_step(history: list[dict[str, Any]], steps: int) -> float:
    """Return the milliseconds of one step, from the Trainer's own clock."""
    seconds = next(entry["train_runtime"] for entry in history if "train_runtime" in entry)
    return 1000 * seconds / steps


def overhead(task: "Task", rounds: int, steps: int) -> dict[str, Any]:
    """Time one epoch of Hugging Face's Trainer and of ours with an idle recipe, taking turns.

    Which of the two goes first changes from round to round.

    Returns:
        Median milliseconds a step of both, and how many times as long ours takes in the median
        round; 1.0 is no difference.
    """
    from helpers import tiers
    from helpers.recipes import load_recipe

    batch = tiers.current().batch_size
    few = task.shortened(steps * batch, 32)
    if (found := math.ceil(len(few.train) / batch)) < steps:
        raise UserError(
            f"{len(few.train)} rows are {found} steps of {batch}, and {steps} are to be timed "
            f"({LEAST_IDLE_STEPS} at least). Take a larger set, or TUTORIAL_TIER=laptop."
        )
    same = {"evaluation_strategy": "no", "bf16": False}
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "idle.yaml"
        file.write_text(IDLE_RECIPE)
        recipe = load_recipe(file)
        for turn in range(rounds):
            if turn % 2:
                plain.append(plain_step(few, folder, **same))
            run = train(few, "this project's defaults", recipe=recipe, **same)
            ours.append(ms_a_step(run["history"], run["steps"]))
            if not turn % 2:
                plain.append(plain_step(few, folder, **same))
    ratios = sorted(one / other for one, other in zip(ours, plain, strict=True))
    return {
        "steps": steps,
        "ms_plain": round(median(plain), 1),
        "ms_idle_recipe": round(median(ours), 1),
        "ratio": {
            "median": round(median(ratios), 3),
            "least": round(ratios[0], 3),
            "most": round(ratios[-1], 3),
        },
    }


def plain_step(task: "Task", folder: str, **settings: str | bool) -> float:
    """Train one epoch with Hugging Face's Trainer and our settings; return milliseconds a step."""
    from transformers import Trainer, TrainingArguments, set_seed

    from helpers import models, path
    from helpers.dropout import quicken_dropout
    from helpers.trainer import DEFAULTS

    sizes = {**path.settings("dense"), "disable_tqdm": True, "num_train_epochs": 1.0}
    args = TrainingArguments(output_dir=folder, **{**DEFAULTS, **sizes, **settings})
    set_seed(args.seed)
    tokenizer = models.load_tokenizer(models.resolve_model("minilm"))
    network = models.new_model("minilm", task)
    quicken_dropout(network)
    rows = task.encode(tokenizer, task.train)
    trainer = Trainer(network, args, task.collator(tokenizer), rows)
    trainer.train()
    return ms_a_step(trainer.state.log_history, trainer.state.global_step)


def train(
    task: "Task", name: str, start: "str | Checkpoint" = "minilm", **settings: Any
) -> dict[str, Any]:
    """Fine-tune a model with one of the settings; return the content of `run.json`."""
    from helpers import path
    from helpers.training import fine_tune

    patches = as_they_come(type(task)) if name in AS_IT_COMES else nullcontext()
    with tempfile.TemporaryDirectory() as folder, patches:
        sizes = {**path.settings("dense"), "disable_tqdm": True, **settings, **SETTINGS[name]}
        return fine_tune(task, start, Path(folder) / "run", **sizes).run


@contextmanager
def as_they_come(kind: "type[Task]") -> Iterator[None]:
    """Let models keep the dropout they come with, and a teacher be asked at every step."""
    from helpers import trainer

    quicken, trainer.quicken_dropout = trainer.quicken_dropout, lambda model: None
    records, kind.records_teacher = kind.records_teacher, False
    try:
        yield
    finally:
        trainer.quicken_dropout, kind.records_teacher = quicken, records
