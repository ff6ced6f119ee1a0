"""The stops of the path: a checkpoint and an ONNX model, each a folder that is whole or absent.

A folder is first written beside its final place and renamed at the end, so a killed run leaves
nothing that could be taken for finished. `run.json` (or `proof.json`) lists every file with its
sha256, so a truncated or edited folder is noticed when it is opened.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from helpers.errors import ProofError, UserError

NOTES = ("run.json", "proof.json", "peer.json")
# Seconds; the start of a process is known to a hundredth only.
CLOCK_ROUNDING = 1.0


def sha256(file: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def partial_folder(folder: Path) -> Path:
    """Return where a stop is written until it is whole."""
    return folder.with_name(f".{folder.name}.partial")


@contextmanager
def writing(
    folder: Path, *, overwrite: bool = False, keep: tuple[Path, ...] = ()
) -> Iterator[Path]:
    """Yield a scratch folder that becomes `folder` when the block ends without an exception.

    Args:
        folder: the final place.
        overwrite: replace an earlier run or export in it.
        keep: what stays of an earlier attempt that was killed.

    Raises:
        UserError: if `folder` already holds something, or another living process writes it.
    """
    refuse_taken(folder, overwrite)
    partial = partial_folder(folder)
    clear_partial(partial, keep)
    make_folder(partial)
    (partial / "writer.pid").write_text(str(os.getpid()))
    try:
        yield partial
        (partial / "writer.pid").unlink()
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except BaseException as error:
        # A run that was stopped, or met a full disk, can go on; one that failed its proof can not,
        # nor one that was refused, unless it goes on itself.
        refused = isinstance(error, UserError) and not keep
        spoilt = refused or isinstance(error, ProofError)
        if spoilt or not any(partial.glob("checkpoint-*")):
            shutil.rmtree(partial, ignore_errors=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, or say why that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"No folder can be made in {folder.parent} ({error.strerror}). "
            "Choose an output folder that can be written."
        ) from error


@contextmanager
def no_empty_folder(folder: Path) -> Iterator[None]:
    """Make a folder; if the work in it fails before it holds anything, leave none behind."""
    make_folder(folder)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # one that holds something stays
            folder.rmdir()
        raise


def is_or_holds(folder: Path, other: Path) -> bool:
    """Tell whether a folder is another one, or is above it: writing it anew would delete both."""
    whole = other.resolve()
    return folder.resolve() in (whole, *whole.parents)


def refuse_taken(folder: Path, overwrite: bool = False) -> None:
    """Refuse a folder that holds something, or that another living process writes."""
    refuse_occupied(folder, overwrite)
    refuse_busy(partial_folder(folder))


def refuse_occupied(folder: Path, overwrite: bool = False) -> None:
    """Refuse a folder that holds something; an earlier run or export in it may be replaced."""
    if folder.is_file():
        raise UserError(f"{folder} is a file, but it has to name a folder. Choose another name.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if any((folder / note).is_file() for note in NOTES):
        if overwrite:
            return
    elif overwrite:
        # Replacing deletes: never what somebody else put there, a home folder say.
        raise UserError(
            f"{folder} holds something that no run of this tutorial wrote; it is not deleted. "
            "Choose another output folder, or delete it yourself."
        )
    raise UserError(
        f"{folder} already holds something and would be overwritten. "
        "Choose another folder, delete it, or pass overwrite=True (--overwrite_output_dir)."
    )


def refuse_busy(partial: Path) -> None:
    """Refuse a place that another living process writes, or a file in its way."""
    if partial.is_file():
        raise UserError(f"{partial} is a file, and in the way. Remove it.")
    note = partial / "writer.pid"
    text = note.read_text() if note.exists() else ""
    writer = int(text) if text.isdecimal() else 0
    if writer and writer != os.getpid() and alive(writer, note.stat().st_mtime):
        raise UserError(
            f"Process {writer} is writing {partial.parent / partial.name[1:-8]} right now. "
            "Wait for it, stop it, or choose another output folder."
        )


def clear_partial(partial: Path, keep: tuple[Path, ...] = ()) -> None:
    """Remove what a killed run left, but for `keep`."""
    left = set(partial.iterdir()) if partial.exists() else set()
    for place in left - set(keep):
        shutil.rmtree(place) if place.is_dir() else place.unlink()


def alive(process: int, since: float) -> bool:
    """Tell whether a process lives that was there at a time (seconds); numbers are used again."""
    try:
        return psutil.Process(process).create_time() <= since + CLOCK_ROUNDING
    except psutil.NoSuchProcess:
        return False


def write_note(folder: Path, name: str, content: dict[str, Any]) -> None:
    """Write `name` (JSON) into the folder, with the sha256 of every other file and its own seal."""
    skip = {name, "writer.pid"}
    # Folders are left out: the Trainer's own checkpoints, where somebody asked for them.
    written = [p for p in sorted(folder.iterdir()) if p.is_file() and p.name not in skip]
    content = {**content, "files": {p.name: sha256(p) for p in written}}
    # As it will be read: JSON has no tuples, and no numbers for keys.
    content = json.loads(json.dumps(content))
    sealed = {**content, "seal": seal(content)}
    (folder / name).write_text(json.dumps(sealed, indent=2) + "\n")


def seal(content: dict[str, Any]) -> str:
    """Return the sha256 of a note without its seal."""
    plain = {name: value for name, value in content.items() if name != "seal"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_note(folder: Path, name: str) -> dict[str, Any]:
    """Read the note of a stop and check that the files it lists are the files that are there.

    Raises:
        UserError: if the folder, its note or a file is missing, or a file was changed.
    """
    if not (folder / name).is_file():
        raise UserError(
            f"{folder} is not a finished stop: {name} is missing. "
            "Give a folder that a run wrote to its end, or run that step again."
        )
    try:
        note = json.loads((folder / name).read_text())
        files = note["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / name} was damaged after the run ended. "
            "Delete the folder and run that step again."
        ) from error
    if note.get("seal", seal(note)) != seal(note):
        raise UserError(
            f"{folder / name} was changed after the run ended. "
            "Delete the folder and run that step again."
        )
    for file, expected in files:
        if not (folder / file).is_file() or sha256(folder / file) != expected:
            raise UserError(
                f"{folder / file} is missing, truncated or was changed after the run ended. "
                "Delete the folder and run that step again."
            )
    return note


@dataclass(frozen=True)
class Checkpoint:
    """A trained model as a folder: weights, config, tokenizer, recipe and `run.json`.

    Attributes:
        folder: where it lies.
        run: the content of `run.json` (task, metrics, history, seed, versions, machine, minutes).
    """

    folder: Path
    run: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Open a finished checkpoint; see `read_note` for the errors raised."""
        return cls(Path(folder).resolve(), read_note(Path(folder), "run.json"))

    @property
    def name(self) -> str:
        """The folder's name, used as the model's name in tables."""
        return self.folder.name

    @property
    def metrics(self) -> dict[str, float]:
        """Validation metrics at the end of training."""
        return self.run["metrics"]

    @property
    def recipe_file(self) -> Path | None:
        """The recipe this model was made with, None for a plain fine-tune."""
        file = self.folder / "recipe.yaml"
        return file if file.is_file() else None


@dataclass(frozen=True)
class OnnxModel:
    """An exported model as a folder: `model.onnx`, tokenizer, config and `proof.json`."""

    folder: Path
    proof: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Open a finished export; see `read_note` for the errors raised."""
        return cls(Path(folder).resolve(), read_note(Path(folder), "proof.json"))

    @property
    def name(self) -> str:
        """The folder's name, used as the model's name in tables."""
        return self.folder.name

    @property
    def file(self) -> Path:
        """The ONNX file itself."""
        return self.folder / "model.onnx"
