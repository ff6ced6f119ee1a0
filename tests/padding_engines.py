"""Engines that go wrong where texts are padded; a child imports this module, so it is light."""

from pathlib import Path

import numpy as np

from helpers import engine_kinds
from helpers.engine_child import Setup


class BlindToMasks(engine_kinds.OnnxRuntime):
    """Takes padding for words."""

    def run(self, inputs: dict[str, np.ndarray]) -> tuple[list[np.ndarray], float]:
        """Run with a mask of ones."""
        ones = np.ones_like(inputs["attention_mask"])
        return super().run(inputs | {"attention_mask": ones})


class RefusesLongTexts(engine_kinds.OnnxRuntime):
    """Compiles for short texts only."""

    def prepare(self, model_path: Path, setup: Setup) -> None:
        """Refuse the longer of two lengths."""
        if setup.sequence_length > 8:
            raise ValueError("no kernel for so many tokens")
        super().prepare(model_path, setup)
