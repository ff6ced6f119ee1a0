"""The commands, one module each, and what they share: parsing and the JSON last line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from helpers.errors import UserError

FLAG_FILES = (".json", ".yaml", ".yml")


def parse(command: str, types: Sequence[type], argv: list[str], **defaults: Any) -> tuple:
    """Read flags, or one .json/.yaml file of flags, into one instance of each dataclass.

    Raises:
        UserError: for a flag or a value that no dataclass has.
    """
    from transformers import HfArgumentParser

    parser = HfArgumentParser(tuple(types), prog=f"python -m helpers {command}")
    parser.set_defaults(**defaults)
    # argparse prints all flags it knows and ends the process; one line is enough.
    parser.error = refuse
    try:
        if len(argv) == 1 and Path(argv[0]).suffix in FLAG_FILES:
            return parser.parse_dict({**defaults, **read_flags(Path(argv[0]))})
        return parser.parse_args_into_dataclasses(argv)
    except (ValueError, TypeError, OSError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{reason}. See `python -m helpers {command} --help`.") from error


def with_first(argv: list[str], flag: str, flag_files: tuple[str, ...] = (".json",)) -> list[str]:
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
    """Print one JSON object as the last line, if it was asked for."""
    if asked:
        print(json.dumps(content))
