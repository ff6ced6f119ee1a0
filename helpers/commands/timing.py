"""What the commands that time models have in common: names of models, numbers, places for files."""

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import environment
from helpers.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from helpers.measurements import Measurement
    from helpers.text_measurements import TextMeasurement

PICTURES = (".png", ".svg", ".pdf")


def words(default: str, text: str) -> list[str]:
    """Return a field for several words, with spaces or commas between them."""
    return field(default_factory=lambda: default.split(","), metadata={"help": text})


def split(texts: list[str]) -> list[str]:
    """Return words that have spaces or commas between them."""
    return [word for text in texts for word in text.split(",") if word]


def refuse_nothing_timed(rows: Sequence["Measurement | TextMeasurement"]) -> None:
    """Refuse to go on with rows of which none has times; why stands in the table.

    Raises:
        UserError: each row has failed.
    """
    if all(row.error for row in rows):
        raise UserError("Nothing could be timed; the reasons are above.")


def whole(name: str, texts: list[str]) -> list[int]:
    """Read a flag's whole numbers.

    Raises:
        UserError: one is no number, below 1, or there twice.
    """
    typed = split(texts)
    check_once(name, typed)
    for word in typed:
        if not word.isdecimal() or int(word) < 1:
            raise UserError(
                f"--{name} has {word!r}. Expected whole numbers of 1 or more, such as 1,16."
            )
    return [int(word) for word in typed]


def check_once(name: str, typed: list[str]) -> None:
    """Refuse a flag that has one word twice: it would be timed twice, beside itself.

    Raises:
        UserError: naming the flag and the word.
    """
    if twice := [word for word in typed if typed.count(word) > 1]:
        raise UserError(f"--{name} has {twice[0]} twice. Give it once.")


def named(models: list[str]) -> dict[str, Path]:
    """Return name to path.

    Raises:
        UserError: two models have one name.
    """
    found = {}
    for text in models:
        for word in taken_apart(text):
            name, path = parted(word)
            place = path.absolute()
            name = name or (place.parent.name if place.name == "model.onnx" else place.name)
            if name in found:
                raise UserError(f"Two models are called {name}. Name them: NAME=PATH.")
            found[name] = path
    return found


def taken_apart(text: str) -> list[str]:
    """Return the models of one word: several with commas between them, or one that has commas."""
    words = split([text])
    several = all(parted(word)[1].exists() for word in words) and not Path(text).exists()
    return words if several or not parted(text)[1].exists() else [text]


def parted(word: str) -> tuple[str, Path]:
    """Return name (or "") and path of NAME=PATH or PATH; either may have a "=" of its own."""
    cuts = [0, *(place + 1 for place, letter in enumerate(word) if letter == "=")]
    there = [cut for cut in cuts if word[cut:] and Path(word[cut:]).exists()]
    # What is not there will be refused, by the most likely name.
    likely = [0] if "/" in word.partition("=")[0] else cuts[1:]
    cut = (there or likely or [0])[0]
    return word[: max(0, cut - 1)], Path(word[cut:])


def check_shared(command: str, asked: Any, numbers: dict[str, int]) -> None:  # noqa: ANN401 - flags
    """Refuse models, engines, numbers that are too small, and files that cannot be used.

    Raises:
        UserError: naming the flag.
    """
    from helpers.engines import ENGINES

    if not split(asked.models):
        raise UserError(f"Nothing to time. Expected: python -m helpers {command} MODEL [MODEL ...]")
    if unknown := [name for name in split(asked.engines) if name not in ENGINES]:
        raise UserError(f"No engine {unknown[0]!r}. Expected some of {', '.join(ENGINES)}.")
    check_once("engines", split(asked.engines))
    for name, least in numbers.items():
        if (getattr(asked, name) or 0) < least:
            raise UserError(f"--{name} is {getattr(asked, name)}. Expected {least} or more.")
    check_place("output", asked.output)
    check_place("plot", asked.plot, picture=True)


def check_place(name: str, file: str | None, *, picture: bool = False) -> None:
    """Refuse a place where no such file can be written.

    Raises:
        UserError: it is a folder, or in none that can be written to; or a picture's name has no
            ending of one.
    """
    if not file:
        return
    if Path(file).is_dir():
        raise UserError(f"--{name} {file} is a folder. Expected the name of a file.")
    above = environment.existing_part(Path(file).absolute().parent)
    if not environment.can_write(above):
        raise UserError(f"--{name} {file}: {above} is no folder to write in. Name another place.")
    if picture and Path(file).suffix.lower() not in PICTURES:
        raise UserError(f"--{name} {file}: expected a name that ends in {', '.join(PICTURES)}.")


def print_left_out(models: list[str], engines: list[str]) -> None:
    """Say which pairs have no row because the engine does not run such a model."""
    from helpers import benchmark

    if pairs := benchmark.left_out(named(models), split(engines)):
        print(f"left out, as the engine does not run such a model: {', '.join(pairs)}\n")


def save_picture(figure: "Figure", file: str) -> None:
    """Write a picture and say so."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    print(f"{file}: the picture")
