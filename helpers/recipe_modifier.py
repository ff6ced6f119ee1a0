"""One modifier of a recipe as plain facts, so that reading a recipe needs no SparseML object."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

# How SparseML's recipes ask for blocks of four, without blanks.
BLOCK_MASKS = ("[1,4]", "block4")


class PruningTarget(NamedTuple):
    """What a recipe promises for the matrices of one pattern."""

    final_sparsity: float
    mask_type: str
    #: False where only all matrices together reach `final_sparsity`.
    per_matrix: bool

    @property
    def in_blocks(self) -> bool:
        """True if zeros come in blocks of four along the input side."""
        return self.mask_type.replace(" ", "") in BLOCK_MASKS


@dataclass(frozen=True)
class RecipeModifier:
    """One modifier: class name, settings with all `eval` done, epochs (-1.0: no limit)."""

    name: str
    params: dict[str, Any]
    start_epoch: float
    end_epoch: float

    @classmethod
    def of(cls, modifier: Any) -> "RecipeModifier":  # noqa: ANN401 - any SparseML modifier
        """Take the plain facts out of a SparseML modifier."""
        settings = modifier.props(only_serializable=True)
        if hasattr(settings.get("scheme"), "model_dump"):
            settings["scheme"] = settings["scheme"].model_dump()
        start, end = float(modifier.start_epoch), float(modifier.end_epoch)
        return cls(type(modifier).__name__, settings, start, end)

    @property
    def prunes(self) -> bool:
        """True if it makes new zeros, as against keeping those that are there."""
        return self.params.get("final_sparsity") is not None

    @property
    def lets_go(self) -> bool:
        """True if its zeros are no longer held after its end."""
        return not self.params.get("leave_enabled", True)

    @property
    def quantizes(self) -> bool:
        """True if it turns the model to int8."""
        return self.name == "QuantizationModifier"

    @property
    def sets_learning_rate(self) -> bool:
        """True if the learning rate is no longer the Trainer's."""
        return "LearningRate" in self.name

    @property
    def ranges_fixed(self) -> float:
        """Epoch from which no int8 range moves any more; infinity if they always do."""
        return self.epochs().get("disable_quantization_observer_epoch", math.inf)

    @property
    def drops(self) -> list[str]:
        """Modules it takes out of the model, by full name; SparseML knows no pattern here."""
        if self.name != "LayerPruningModifier":
            return []
        given = self.params["layers"]
        return [given] if isinstance(given, str) else list(given)

    def patterns(self) -> list[str]:
        """Return the parameter patterns it applies to."""
        final = self.params.get("final_sparsity")
        if isinstance(final, dict):
            return [pattern for patterns in final.values() for pattern in patterns]
        # SparseML takes an empty list of a pruner's for its word for all matrices.
        given = self.params.get("params") or (["__ALL_PRUNABLE__"] if self.prunes else [])
        return [given] if isinstance(given, str) else list(given)

    def levels(self) -> dict[str, float]:
        """Return the zeros that a pruner ends with, 0 to 1, for each of its patterns."""
        final = self.params["final_sparsity"]
        if not isinstance(final, dict):
            return dict.fromkeys(self.patterns(), float(final))
        return {pattern: float(level) for level, found in final.items() for pattern in found}

    def epochs(self) -> dict[str, float]:
        """Return every epoch it names: start_epoch, end_epoch, ..., without the -1 of no limit."""
        found = {key: value for key, value in self.params.items() if key.endswith("_epoch")}
        return {
            key: float(value) for key, value in found.items() if value is not None and value >= 0
        }


def in_order(modifiers: list[RecipeModifier]) -> list[RecipeModifier]:
    """Return modifiers as a reader follows them: the run's length, then by start.

    SparseML sorts by end, which puts the frame of the run in the middle.
    """
    frame = "EpochRangeModifier"
    return sorted(modifiers, key=lambda m: (m.name != frame, max(0.0, m.start_epoch)))
