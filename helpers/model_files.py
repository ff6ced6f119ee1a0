"""The files a model is made of: found, held to what they should be, hashed and copied.

Why: an ONNX file may keep its weights in other files (external data). A hash or a copy of the one
file would miss most of the model, and a location such as `../../x` would reach out of its folder.

How: the graph is read without its weights; every file it names has to lie beside it and be long
enough for what is read from it.
"""

import hashlib
import os
import shutil
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import environment, stops
from helpers.engine_child import OPENVINO_FILE
from helpers.errors import UserError

if TYPE_CHECKING:
    import onnx

# What `git clone` leaves of a big file where Git LFS is not installed.
LFS_POINTER, LONGEST_POINTER = b"version https://git-lfs.github.com/spec/", 1024
# The copy, and what the engine writes beside it: ONNX Runtime the graph that it really runs.
DISK_FOR_A_COPY = 2


def kind_of(model: Path) -> str:
    """Return what a path holds: "ONNX file", "checkpoint", or "OpenVINO model" (a folder)."""
    if model.is_file():
        return "ONNX file"
    return "OpenVINO model" if (model / OPENVINO_FILE).is_file() else "checkpoint"


def files_of(model: Path) -> list[Path]:
    """Return all files of a model: an ONNX file and its data, or what a folder holds.

    Raises:
        UserError: it is no ONNX file, or its data is missing, too short or outside its folder.
    """
    if model.is_file():
        return [model, *external_files(model, skeleton(model))]
    weights = (model / OPENVINO_FILE).with_suffix(".bin")
    if kind_of(model) == "OpenVINO model" and not weights.is_file():
        raise UserError(f"{model / OPENVINO_FILE} needs {weights.name} beside it. Copy both.")
    return sorted(file for file in model.rglob("*") if file.is_file())


def skeleton(file: Path) -> "onnx.GraphProto":
    """Return the graph of an ONNX file without its weights; their names and shapes are there.

    It is kept, because the engine of every row asks for it, and reading takes 2 s for a BERT-base.

    Raises:
        UserError: the file is damaged or none.
    """
    status = file.stat()
    return _skeleton(file.absolute(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=32)
def _skeleton(file: Path, *_version: int) -> "onnx.GraphProto":
    graph = parse(file).graph
    for tensor in stored(graph):
        tensor.ClearField("raw_data")
    return graph


def parse(file: Path) -> "onnx.ModelProto":
    """Read an ONNX file by itself, without data that lies in other files.

    Raises:
        UserError: it is damaged, or something else.
    """
    import onnx

    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as error:  # protobuf's errors differ between its implementations
        found = "a pointer of Git LFS: run `git lfs pull`" if is_pointer(file) else in_short(error)
        raise UserError(
            f"{file} is not an ONNX file, or damaged ({found}). Export it again."
        ) from error
    if not model.graph.node:
        raise UserError(f"{file} is not an ONNX file, or an empty one. Export the model again.")
    return model


def is_pointer(file: Path) -> bool:
    """Tell whether a file is what Git LFS has put in the place of a big one."""
    small = file.is_file() and file.stat().st_size < LONGEST_POINTER
    return small and file.read_bytes().startswith(LFS_POINTER)


def in_short(error: Exception) -> str:
    """Return an error's message in one short line, or its name if it says nothing."""
    return textwrap.shorten(str(error), 160, placeholder=" ...") or type(error).__name__


def stored(graph: "onnx.GraphProto") -> Iterator["onnx.TensorProto"]:
    """Yield the tensors stored in a graph, in its constants, and in the graphs inside of it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from stored(attribute.g)


def external_files(file: Path, graph: "onnx.GraphProto") -> list[Path]:
    """Return the files of data that a graph names, each once.

    Raises:
        UserError: one is missing, too short, or outside the model's folder.
    """
    from onnx import external_data_helper as external

    outside = [tensor for tensor in stored(graph) if external.uses_external_data(tensor)]
    try:
        places = [external.ExternalDataInfo(tensor) for tensor in outside]
    except ValueError as error:
        raise UserError(f"{file} is damaged ({in_short(error)}). Export it again.") from error
    ends: dict[str, int] = {}
    for place in places:
        end = (place.offset or 0) + (place.length or 0)
        ends[place.location] = max(end, ends.get(place.location, 0))
    return sorted({beside(file, name, end) for name, end in ends.items()})


def beside(file: Path, name: str, size: int = 0) -> Path:
    """Return a file of data by the name a model has for it.

    A link may lead out of the folder, as in the hub's cache: its owner made it, not the model.

    Raises:
        UserError: it is missing, has fewer bytes than `size`, or is named outside the folder.
    """
    place = Path(os.path.normpath(name))
    if place.is_absolute() or place.parts[:1] == ("..",):
        raise UserError(f"{file} points to data outside its folder ({name}). Do not use it.")
    data = file.parent / place
    if not data.is_file():
        raise UserError(f"{file} needs {name} beside it, which is missing. Copy both.")
    if (found := data.stat().st_size) < size:
        raise UserError(
            f"{file} needs {size:,} bytes of {name}, which has {found:,}: it is damaged, or "
            "belongs to another model. Copy both again."
        )
    return data


def fingerprint(model: Path, files: list[Path] | None = None) -> str:
    """Return the sha256 of a file, or of the names and hashes of several.

    Args:
        model: a file or a folder.
        files: those that belong to it; they are looked up unless given.
    """
    files = files or files_of(model)
    if files == [model]:
        return hash_of(model)
    lines = [f"{hash_of(file)}  {file.relative_to(root(model))}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def hash_of(file: Path) -> str:
    """Return the sha256 of a file that may have gone meanwhile."""
    return stops.sha256(file) if file.is_file() else "no file"


def root(model: Path) -> Path:
    """Return the folder that all files of a model lie in."""
    return model if model.is_dir() else model.parent


def private_copy(model: Path, files: list[Path], folder: Path) -> Path:
    """Copy a model's files into a folder, each where it lies beside the others.

    Raises:
        UserError: the disk has no room for them.
    """
    environment.check_disk(folder, DISK_FOR_A_COPY * sum(file.stat().st_size for file in files))
    target = folder / "model"
    for file in files:
        place = target / file.relative_to(root(model))
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    return target / model.relative_to(root(model))
