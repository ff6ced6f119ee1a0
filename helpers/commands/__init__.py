"""The commands, one module each, and what they share: parsing and the JSON last line."""

import json
from collections.abc import Sequence
from typing import Any

from helpers.errors import UserError


def parse(command: str, types: Sequence[type], argv: list[str], **defaults: Any) -> tuple:
    """Read flags, or one .json/.yaml file of flags, into one instance of each dataclass.

    Raises:
        UserError: for a flag or a value that no dataclass has.
    """
    from transformers import HfArgumentParser

    parser = HfArgumentParser(tuple(types), prog=f"python -m helpers {command}")
    parser.set_defaults(**defaults)
    try:
        if len(argv) == 1 and argv[0].endswith(".json"):
            return parser.parse_json_file(argv[0])
        if len(argv) == 1 and argv[0].endswith((".yaml", ".yml")):
            return parser.parse_yaml_file(argv[0])
        return parser.parse_args_into_dataclasses(argv)
    except (ValueError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{reason} See `python -m helpers {command} --help`.") from error


def print_json(asked: bool, content: dict[str, Any]) -> None:
    """Print one JSON object as the last line, if it was asked for."""
    if asked:
        print(json.dumps(content))
