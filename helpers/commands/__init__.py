"""The commands, one module each, and what they share: parsing and the JSON last line."""

import argparse
import difflib
import json
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import yaml

from helpers.errors import UserError

FLAG_FILES = (".json", ".yaml", ".yml")
# Characters of somebody else's message that a reader is shown.
LONGEST = 300


def parse(command: str, types: Sequence[type], argv: list[str], **defaults: Any) -> tuple:
    """Read flags, or one .json/.yaml file of flags, into one instance of each dataclass.

    Raises:
        UserError: for a flag or a value that no dataclass has.
    """
    from transformers import HfArgumentParser

    name = f"python -m helpers {command}"
    parser = HfArgumentParser(tuple(types), prog=name, allow_abbrev=False)
    parser.set_defaults(**defaults)
    # argparse prints all flags it knows and ends the process; one line is enough.
    parser.error = refuse
    try:
        *found, left = parser.parse_args_into_dataclasses(
            typed_out(argv), return_remaining_strings=True
        )
        if left:
            refuse(no_flag(left[0], [f.name for kind in types for f in fields(kind)]))
    except (ValueError, TypeError, OSError, yaml.YAMLError) as error:
        reason = textwrap.shorten(str(error), LONGEST).rstrip(".")
        reason = f"{argv[0]}: {reason}" if is_flag_file(argv) else reason
        end = "" if reason.endswith("?") else "."
        raise UserError(f"{reason}{end} See `{name} --help`.") from error
    return tuple(found)


def no_flag(word: str, known: list[str]) -> str:
    """Say that a word is no flag, and which flags look like it."""
    if not word.startswith("-"):
        return f"{word} is no flag. A file of flags must stand alone"
    near = difflib.get_close_matches(word.split("=")[0].lstrip("-"), known, n=2, cutoff=0.7)
    return f"There is no flag {word}" + (f"; is --{' or --'.join(near)} meant?" if near else "")


def typed_out(argv: list[str]) -> list[str]:
    """Return the flags, those of a .json/.yaml file as if they had been typed.

    So their values are read like any others: YAML takes `5e-5` for a word.
    """
    if not is_flag_file(argv):
        return argv
    typed = []
    for name, value in read_flags(Path(argv[0])).items():
        if isinstance(value, list):
            typed += [f"--{name}", *map(str, value)]
        elif value is not None:
            text = json.dumps(value) if isinstance(value, dict | bool) else value
            typed.append(f"--{name}={text}")
    return typed


def is_flag_file(argv: list[str]) -> bool:
    """Tell whether all that was typed is the name of a file of flags."""
    return len(argv) == 1 and Path(argv[0]).suffix in FLAG_FILES


def given(argv: list[str], *names: str) -> dict[str, str]:
    """Return those of some flags that were given, as text; a flag without a value says "true"."""
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    parser.error = refuse
    for name in names:
        parser.add_argument(f"--{name}", nargs="?", const="true")
    try:
        return vars(parser.parse_known_args(typed_out(argv))[0])
    except (ValueError, OSError, yaml.YAMLError):
        return {}  # `parse` will say what is wrong with the file.


def with_first(argv: list[str], flag: str, flag_files: tuple[str, ...] = FLAG_FILES) -> list[str]:
    """Return the flags, with `flag` put before a word that stands first without one.

    Args:
        argv: what was typed.
        flag: what that word is the value of.
        flag_files: endings of files of flags, which stay what they are.
    """
    if not argv or argv[0].startswith("-") or argv[0].endswith(flag_files):
        return argv
    return [flag, *argv]


def refuse(message: str) -> NoReturn:
    """Stand in for `ArgumentParser.error`."""
    raise UserError(message)


def read_flags(file: Path) -> dict[str, Any]:
    """Read a file of flags."""
    text = file.read_text("utf-8")
    flags = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    if isinstance(flags, dict):
        return flags
    raise UserError(f"{file.name} holds no flags. Expected one object: name to value")


def print_json(asked: bool, content: dict[str, Any]) -> None:
    """Print one JSON object as the last line, if it was asked for; null for what is no number."""
    if asked:
        text = json.dumps(content)
        # JSON has no word for them, Python's writer has.
        print(json.dumps(json.loads(text, parse_constant=lambda _: None)))
