"""Recipes: load, override, check against a model, preview.

A recipe says when which modifier acts. SparseML runs it, and trusts it: a pattern that matches
too little prunes too little, an epoch beyond the end never comes, and nobody says so. Here a recipe
is read by the older `ScheduledModifierManager`, whose evaluator knows arithmetic only, and is
checked before the first training step.
"""

import difflib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import compat, recipe_preview, recipe_text
from helpers.errors import UserError
from helpers.recipe_checks import already_sparse, check_against
from helpers.recipe_modifier import PruningTarget, RecipeModifier, in_order
from helpers.recipe_text import Variable

if TYPE_CHECKING:
    import pandas as pd
    from sparseml.pytorch.optim import ScheduledModifierManager

__all__ = [
    "PruningTarget",
    "Recipe",
    "RecipeModifier",
    "already_sparse",
    "check_against",
    "load_recipe",
    "with_distillation",
]
_GLOBAL = {"GlobalMagnitudePruningModifier"}
# Settings of any modifier that are numbers, with what stands behind them on their line.
NUMBERS = re.compile(
    r"^[ -]+(\w+_epoch|update_frequency|(?:init|final)_(?:sparsity|lr)): *([^\s#{\[]+)",
    re.MULTILINE,
)
# Those of them that are none in SparseML's own defaults, so that YAML's null says "never".
MAY_BE_ABSENT = ("disable_quantization_observer_epoch", "freeze_bn_stats_epoch")


@dataclass(frozen=True)
class Recipe:
    """A recipe that SparseML has accepted, with its overrides put in.

    Attributes:
        text: YAML with comments, `eval(...)` and overrides; may be given to SparseML as it is.
        variables: the variables at its top, evaluated.
        num_epochs: length of the run it asks for.
    """

    name: str
    path: Path
    text: str
    variables: dict[str, Variable]
    num_epochs: float
    modifiers: list[RecipeModifier]

    @property
    def sha256(self) -> str:
        """Hash of the text, overrides included."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def has(self, modifier: str) -> bool:
        """Tell whether one of its modifiers is of this class."""
        return any(declared.name == modifier for declared in self.modifiers)

    @property
    def has_quantization(self) -> bool:
        """True if the model comes out in int8."""
        return any(modifier.quantizes for modifier in self.modifiers)

    @property
    def quantization_start(self) -> float | None:
        """Epoch from which training runs in int8; None without quantization."""
        starts = [max(0.0, m.start_epoch) for m in self.modifiers if m.quantizes]
        return min(starts, default=None)

    @property
    def declares_distillation(self) -> bool:
        """True if the recipe itself asks for a teacher."""
        return any("Distillation" in modifier.name for modifier in self.modifiers)

    @property
    def distills_answers(self) -> bool:
        """True if it says itself how much the teacher's answers weigh."""
        return self.has("DistillationModifier")

    @property
    def compares_states(self) -> bool:
        """Tell whether it compares hidden states, which only a teacher that runs along has."""
        return self.has("PerLayerDistillationModifier")

    @property
    def keeps_zeros(self) -> bool:
        """True if it holds the zeros of a model that is sparse already."""
        return self.has("ConstantPruningModifier")

    @property
    def dropped_layers(self) -> list[str]:
        """Modules it takes out of the model, by their full names."""
        return [name for modifier in self.modifiers for name in modifier.drops]

    @property
    def sets_learning_rate(self) -> bool:
        """True if it has a schedule of its own, which overrules the Trainer's."""
        return any(modifier.sets_learning_rate for modifier in self.modifiers)

    @property
    def last_event_epoch(self) -> float:
        """Last epoch at which sparsity, int8 or its ranges change; 0.0 if none does.

        Only a checkpoint from after it is the model that will be exported.
        """
        acting = [m for m in self.modifiers if m.prunes or m.quantizes]
        return max((epoch for m in acting for epoch in m.epochs().values()), default=0.0)

    def pruning_targets(self) -> dict[str, PruningTarget]:
        """Return parameter pattern to what is promised for it; only modifiers that make zeros.

        Where two prune the same matrices, the more zeros, unless the first has let them go: a
        stage keeps the epochs of its own run, so their order says nothing.
        """
        targets: dict[str, PruningTarget] = {}
        held: dict[str, float] = {}
        for modifier in (m for m in self.modifiers if m.prunes):
            mask = str(modifier.params.get("mask_type") or "unstructured")
            shared = modifier.name in _GLOBAL or bool(modifier.params.get("global_sparsity"))
            for pattern, level in modifier.levels().items():
                if level >= held.get(pattern, 0.0):
                    targets[pattern] = PruningTarget(level, mask, not shared)
                    held |= {} if modifier.lets_go else {pattern: level}
        return targets

    def explain(self) -> "pd.DataFrame":
        """Return one row a modifier: modifier, what, epochs, settings, why."""
        return recipe_preview.explain(self)

    def schedule(self, points: int = 401) -> "pd.DataFrame":
        """Return the planned curves: epoch, sparsity, learning_rate, quantized."""
        return recipe_preview.schedule(self, points)

    def manager(self, **overrides: Variable) -> "ScheduledModifierManager":
        """Return a fresh SparseML manager; a manager serves one run only."""
        return make_manager(recipe_text.override(self.text, overrides, self.name), self.name)


def load_recipe(name_or_path: str | Path, /, **overrides: Variable) -> Recipe:
    """Return a recipe by name (from recipes/, with or without .md) or by path (.md, .yaml, .yml).

    Args:
        name_or_path: which recipe.
        **overrides: new values for the variables at its top, such as `num_epochs=2`.

    Raises:
        UserError: stub, missing file, broken or dangerous text, unknown modifier or variable.
    """
    file = recipe_text.find_recipe(name_or_path)
    text = recipe_text.override(recipe_text.read_recipe(file), overrides, file.name)
    return from_text(text, file.stem, file)


def from_text(text: str, name: str, path: Path) -> Recipe:
    """Return the recipe in `text`, which has been through `recipe_text.refuse_danger`."""
    from sparseml.optim.helpers import (
        evaluate_recipe_yaml_str_equations,
        load_global_recipe_variables_from_yaml,
    )

    manager = make_manager(text, name)
    if any(isinstance(modifier, dict) for modifier in manager.iter_modifiers()):
        raise UserError(f"{name}: a modifier has no name. Expected each to begin with '- !Name'.")
    evaluated = evaluate_recipe_yaml_str_equations(text)
    variables = load_global_recipe_variables_from_yaml(evaluated)
    modifiers = in_order([RecipeModifier.of(modifier) for modifier in manager.iter_modifiers()])
    num_epochs = run_length(modifiers, variables, name)
    return Recipe(name, path, text, variables, num_epochs, modifiers)


def make_manager(text: str, name: str) -> "ScheduledModifierManager":
    """Return SparseML's manager for a text, whatever goes wrong as a UserError."""
    from sparseml.pytorch.optim import ScheduledModifierManager

    compat.quiet_sparseml()
    compat.keep_scheme_on_qconfig()
    try:
        return ScheduledModifierManager.from_yaml(text)
    except Exception as error:  # noqa: BLE001 - modifiers raise anything on bad settings
        raise UserError(f"{name}: {no_number(text) or reason(error)}") from None


def no_number(text: str) -> str | None:
    """Name the first setting that should be a number and is none; SparseML says only `str`."""
    for setting, value in NUMBERS.findall(text):
        value = value.strip("'\"")
        absent = value in ("null", "~") and setting in MAY_BE_ABSENT
        if not absent and not value.startswith("eval(") and not is_number(value):
            return f"{setting} is {value!r}. Expected a number, or eval() of the variables."
    return None


def is_number(value: str) -> bool:
    """Tell whether YAML's text is one."""
    try:
        float(value)
    except ValueError:
        return False
    return True


def reason(error: Exception) -> str:
    """Return what SparseML minded, in one line, with the nearest name for an unknown modifier."""
    message = " ".join(str(error).split())
    unknown = re.search(r"constructor for the tag '!(?:pytorch\.)?(?:OBJECT\.)?(\w+)", message)
    if not unknown:
        return f"SparseML refuses it ({type(error).__name__}): {message[:200]}. Mend that setting."
    import yaml

    known = [str(tag)[9:] for tag in yaml.SafeLoader.yaml_constructors if "!pytorch." in str(tag)]
    near = difflib.get_close_matches(unknown[1], known, n=3, cutoff=0.4) or sorted(known)
    return f"unknown modifier {unknown[1]}. Expected one of SparseML's; near: {', '.join(near)}."


def run_length(modifiers: list[RecipeModifier], variables: dict[str, Variable], name: str) -> float:
    """Return the epochs a recipe runs for: its EpochRangeModifier, else its `num_epochs`.

    Raises:
        UserError: neither is there, or it is not above zero.
    """
    ends = [m.end_epoch for m in modifiers if m.name == "EpochRangeModifier"]
    length = max(ends, default=variables.get("num_epochs"))
    if isinstance(length, int | float) and 0 < length < float("inf"):
        return float(length)
    raise UserError(f"{name} runs for {length} epochs. Expected num_epochs to be above zero.")


def with_distillation(
    recipe: Recipe,
    hardness: float = 1.0,
    temperature: float = 2.0,
    output_keys: tuple[str, ...] = ("logits",),
) -> Recipe:
    """Return the recipe with a distillation modifier, as the command-line flags ask for it.

    Args:
        recipe: one that does not distill yet.
        hardness: weight of the teacher against the labels, 0 to 1.
        temperature: softening of both outputs, above 0.
        output_keys: outputs to imitate; ("start_logits", "end_logits") for question answering.

    Raises:
        UserError: the recipe declares distillation itself, or has stages, or a value is out of
            range.
    """
    if recipe.distills_answers:
        raise UserError(
            f"{recipe.name} declares its distillation, and so do the flags. Expected one of them: "
            "leave the flags away, or take a recipe without a DistillationModifier."
        )
    if not 0 <= hardness <= 1 or not 0 < temperature < float("inf"):
        raise UserError(
            f"hardness {hardness} and temperature {temperature}: expected 0 to 1 and above 0."
        )
    if recipe_text.has_stages(recipe.text):
        # Beside modifiers at the top SparseML drops all stages, without a word.
        raise UserError(
            f"{recipe.name} has stages, where the distillation of --distill_teacher has no place. "
            "Write a DistillationModifier into them."
        )
    added = (
        "\nflag_distillation_modifiers:\n"
        "  - !DistillationModifier  # from the command-line flags\n"
        "      start_epoch: 0.0\n"
        f"      hardness: {float(hardness)}\n"
        f"      temperature: {float(temperature)}\n"
        f"      distill_output_keys: [{', '.join(output_keys)}]\n"
    )
    taught = from_text(recipe.text.rstrip("\n") + "\n" + added, recipe.name, recipe.path)
    if taught.compares_states:
        refuse_lost_states(taught)
    return taught


def refuse_lost_states(recipe: Recipe) -> None:
    """Refuse hidden states whose loss the flags' distillation would take the weight from.

    SparseML sorts modifiers by their end, then by their start. A DistillationModifier multiplies
    what came before it by 1 - hardness, and by 0 unless a hardness was given.

    Raises:
        UserError: a PerLayerDistillationModifier that ends, or that has no start of 0.
    """
    order = [type(modifier).__name__ for modifier in recipe.manager().iter_modifiers()]
    states = "PerLayerDistillationModifier"
    if states in order[: order.index("DistillationModifier")]:
        raise UserError(
            f"{recipe.name}: {states} comes before the distillation of the answers, which would "
            "take its weight. Give it `start_epoch: 0.0` and no `end_epoch`."
        )
