"""Collect measured results and write the pages' tables from them."""

import os
from dataclasses import dataclass

from helpers.commands import parse
from helpers.commands.arguments import flag


@dataclass
class ResultsArguments:
    """What to do besides writing the tables."""

    collect: str | None = flag(None, "task whose runs (at TUTORIAL_TIER) go into results/ first")
    transfer: bool = flag(False, "what tools/sparse_transfer.sh has trained goes into results/")
    ablations: bool = flag(False, "what tools/ablations.sh has trained goes into results/")
    name: str | None = flag(
        None, "their file in results/, where a second run stands beside the first"
    )
    command: str | None = flag(None, "the command that made those runs")


def main(argv: list[str]) -> int:
    """Write results/ if asked, then the tables of README.md and results/README.md."""
    from helpers import results
    from helpers.errors import UserError

    (asked,) = parse("results", (ResultsArguments,), argv)
    if asked.name and asked.transfer == asked.ablations:
        raise UserError("--name is the file of one collection. Give --transfer or --ablations.")
    if asked.collect:
        tier = os.environ.get("TUTORIAL_TIER", "laptop")
        command = (
            asked.command
            or f"TUTORIAL_TIER={tier} python -m helpers path --task_name {asked.collect}"
        )
        print(results.store(results.collect(asked.collect), command))
    trained = (
        ("sparse_transfer", asked.transfer, results.collect_transfer),
        ("ablations", asked.ablations, results.collect_ablations),
    )
    for name, wanted, gather in trained:
        if wanted:
            command = asked.command or f"bash tools/{name}.sh"
            results.write(asked.name or name, gather(), command)
    results.write_pages()
    return 0
