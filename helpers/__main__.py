"""`python -m helpers <command>`: one module of `helpers.commands` each, errors for people."""

import importlib
import os
import signal
import sys

from helpers import environment
from helpers.errors import CellFailed, ProofError, UserError

COMMANDS = {
    "tutorial": "run the notebooks in order and print what they measured",
    "path": "make named stops of the tutorial's path for a task, without notebooks",
    "run_glue": "fine-tune a text classifier, with or without a recipe, and export it",
    "run_qa": "the same for questions whose answers stand in a text",
    "run_ner": "the same for a tag on every word",
    "run_mlm": "the same for hidden words of plain text; no export",
    "sparsify_upstream": "prune an encoder on plain text, without labels, for any task",
    "preview": "show what a recipe will do, in a model too, before it is run",
    "export": "export a finished checkpoint to ONNX and prove the export",
    "quantize": "write a dense model in int8 without training, to compare with",
    "shape": "export a model of a known shape with random weights, for timing only",
    "inspect": "show zeros, precision and bytes of a checkpoint or an ONNX file, layer by layer",
    "benchmark": "time models on engines, and say what that means on this CPU",
    "profile": "show where the time of a call goes, part by part, on each engine",
    "texts": "time models on real texts, padded and in length buckets, tokenising included",
    "doctor": "say what is wrong with this installation or machine, and how to mend it",
    "speed": "measure what the CPU settings gain in training",
    "results": "collect measured results and write the pages' tables from them",
}


def usage() -> str:
    """Return the list of commands."""
    rows = [f"  {name:17} {purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(["usage: python -m helpers <command> [--help]", "", *rows])


def main(argv: list[str]) -> int:
    """Run a command; return 0, 1 (proof or notebook failed), 2 (bad input) or 130 (interrupted)."""
    if argv and argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    try:
        if not argv or argv[0] not in COMMANDS:
            found = f"There is no command {argv[0]!r}" if argv else "No command was given"
            raise UserError(
                f"{found}. Expected one of {', '.join(COMMANDS)}; --help explains them."
            )
        if argv[0] == "doctor":
            # It has to speak where the next lines refuse.
            return importlib.import_module("helpers.doctor").main(argv[1:])
        environment.check_python()
        environment.check_packages()
        check_size()
        return importlib.import_module(f"helpers.commands.{argv[0]}").main(argv[1:])
    except UserError as error:
        complain(f"error: {error}")
        return 2
    except ProofError as error:
        complain(f"proof failed: {error}")
        return 1
    except CellFailed as error:
        complain(f"notebook failed: {error}")
        return 1
    except KeyboardInterrupt:
        # A progress bar has left the cursor in its line.
        complain(f"\ninterrupted: nothing unfinished counts as finished. {how_to_go_on(argv)}")
        return 130


def how_to_go_on(argv: list[str]) -> str:
    """Say what becomes of an interrupted run of a command."""
    if not argv[0].startswith("run_") and argv[0] != "sparsify_upstream":
        return "Give the same command again."
    from helpers.commands.running import said_yes  # not on top: older Pythons cannot read it

    replaces = said_yes(argv[1:], "overwrite_output_dir")
    again = "again with --resume_from_checkpoint true" if replaces else "again"
    return (
        f"A run with --save_strategy goes on if the same command is given {again} "
        "(not movement or OBS pruning)."
    )


def check_size() -> None:
    """Refuse a wrong TUTORIAL_TIER before anything is trained."""
    from helpers import tiers  # not on top: older Pythons cannot read it

    tiers.current()


def complain(message: str) -> None:
    """Print an error, once where torchrun has started several of us."""
    if os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr)


if __name__ == "__main__":
    # `kill`, `timeout` and a batch system's end of time stop a run as Ctrl-C does, leaving nothing.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
