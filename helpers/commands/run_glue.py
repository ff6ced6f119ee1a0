"""Fine-tune a text classifier, with or without a recipe, and export it."""

from helpers.commands.arguments import TextArguments
from helpers.commands.running import run


def main(argv: list[str]) -> int:
    """Classes, several classes or scores, for single texts or pairs."""
    return run("run_glue", TextArguments, argv)
