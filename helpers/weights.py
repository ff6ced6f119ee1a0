"""The weights of a model's folder: read without running pickled code, and loaded strictly.

Files of older releases name weights otherwise, and a weight that a model has in two places is
written once; both find their places here, and nothing else does.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.errors import UserError, unreachable

if TYPE_CHECKING:
    from torch import nn

# Of BERT's pre-training; a head that has no use for them is not changed by them.
LEFTOVERS = ("cls.seq_relationship.", "bert.pooler.")
# Names of older releases, with those of today.
RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def load(model: "nn.Module", folder: Path) -> None:
    """Fill a model with a folder's weights, strictly; pickled code is never run.

    Raises:
        UserError: if they cannot be read, or are not those of this model.
    """
    try:
        state = read(folder)
    except Exception as error:  # safetensors, pickle and zip errors share no base class
        raise unreachable(folder, "model", error) from error
    try:
        model.load_state_dict(fitted(state, model), strict=True)
    except RuntimeError as error:
        problem = str(error).strip().splitlines()[-1].strip()[:200]
        raise UserError(
            f"The weights in {folder} do not fit the model its config and recipe describe "
            f"({problem}). The folder mixes two models: run that step again."
        ) from error


def fitted(state: dict[str, Any], model: "nn.Module") -> dict[str, Any]:
    """Return the weights of a file as a model takes them, those included that it has in two places.

    `save_pretrained` writes such a weight once, as the one of a masked-LM head that is the word
    embeddings, too. Where the model itself does not share it, a missing one stays missing.
    """
    known = model.state_dict().keys()
    found = {renamed(key): value for key, value in state.items()}
    # A buffer of older releases; the positions are counted anew.
    found = {key: value for key, value in found.items() if not key.endswith(".position_ids")}
    unused = {key for key in found if key.startswith(LEFTOVERS)} - known
    found = {key: value for key, value in found.items() if key not in unused}
    places: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(weight), []).append(name)
    for names in places.values():
        written = [name for name in names if name in found]
        if written:
            found |= {name: found[written[0]] for name in names if name not in found}
    return found


def renamed(key: str) -> str:
    """Return what a weight is called today."""
    for old, new in RENAMED.items():
        key = key.replace(old, new)
    return key


def read(folder: Path) -> dict[str, Any]:
    """Read the weights of a folder, by name."""
    import torch
    from safetensors.torch import load_file

    file = file_of(folder)
    if file.suffix == ".safetensors":
        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def file_of(folder: Path) -> Path:
    """Return the file that holds a folder's weights, safetensors before pickle."""
    safe = folder / "model.safetensors"
    return safe if safe.is_file() else folder / "pytorch_model.bin"
