"""More than one process (torchrun, accelerate launch): one writes and speaks, the others train.

Accelerate does the work. With one process everything here is the same path, with nobody to wait
for.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from helpers.errors import ProofError

if TYPE_CHECKING:
    import torch


def is_main() -> bool:
    """Tell whether this is the process that writes and speaks."""
    return PartialState().is_main_process


@contextmanager
def together() -> Iterator[None]:
    """Let the main process alone print; the others' errors end the run all the same."""
    import torch

    try:
        if is_main():
            yield
            return
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@contextmanager
def one_writer(writing: AbstractContextManager[Path], folder: Path) -> Iterator[Path]:
    """Yield the folder `writing` makes, to all processes; all leave after it is whole.

    Args:
        writing: makes and finishes the folder; entered by the main process only.
        folder: where it writes, as the others know it.
    """
    state = PartialState()
    # None of them may still look at what an earlier attempt has left.
    state.wait_for_everyone()
    if state.is_main_process:
        with writing as made:
            state.wait_for_everyone()
            yield made
            # None of them may still read in it when it gets its final name.
            state.wait_for_everyone()
    else:
        state.wait_for_everyone()
        yield folder
        state.wait_for_everyone()
    state.wait_for_everyone()


def agreed(value: Any) -> Any:  # noqa: ANN401 - whatever pickles
    """Return the main process's value: what was measured may differ between processes."""
    return broadcast_object_list([value])[0]


def check_same_everywhere(network: "torch.nn.Module") -> None:
    """Hold the parameters, and so the masks, of all processes to each other.

    Raises:
        ProofError: if any number differs.
    """
    digest = hashlib.sha256()
    for parameter in network.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    found = gather_object([digest.hexdigest()])
    if len(set(found)) == 1:
        return
    raise ProofError(
        "processes",
        f"the same weights and masks in all {len(found)} processes",
        f"{len(set(found))} different ones",
        "They have drifted apart; nothing was written.",
    )


def average_ranges(network: "torch.nn.Module") -> None:
    """Give all processes the mean of the int8 ranges each has seen; QAT needs it after each step.

    DistributedDataParallel knows the buffers there were when it was made, before QAT began.
    """
    import torch
    from torch.ao.quantization import FakeQuantize

    if PartialState().num_processes == 1:
        return
    learning = [m for m in network.modules() if isinstance(m, FakeQuantize) and m.observer_enabled]
    observers = [m.activation_post_process for m in learning]
    ends = [end for o in observers for end in (o.min_val, o.max_val) if end.isfinite().all()]
    if not ends:
        return
    together = torch.cat([end.reshape(-1) for end in ends])
    torch.distributed.all_reduce(together)
    together /= PartialState().num_processes
    for end, mean in zip(ends, together.split([end.numel() for end in ends]), strict=True):
        end.copy_(mean.view_as(end))
    for rounding, observer in zip(learning, observers, strict=True):
        if observer.min_val.isfinite().all():
            scale, zero_point = rounding.calculate_qparams()
            rounding.scale.copy_(scale)
            rounding.zero_point.copy_(zero_point)
