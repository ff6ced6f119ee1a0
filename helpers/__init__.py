"""Sparse transfer learning on transformers, where every step proves what it claims.

Importing this package is light: it silences and de-telemeters the stack, then loads each public
name only when it is first used.
"""

from importlib import import_module
from typing import Any

from helpers import compat

compat.quiet_stack()

_PUBLIC = {
    "load_task": "tasks",
    "load_recipe": "recipes",
    "fine_tune": "training",
    "load_model": "models",
    "Checkpoint": "stops",
    "OnnxModel": "stops",
    "export_onnx": "export",
    "UserError": "errors",
    "ProofError": "errors",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    """Load a public name from its module on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'helpers' has no attribute {name!r}")
    return getattr(import_module(f"helpers.{_PUBLIC[name]}"), name)
