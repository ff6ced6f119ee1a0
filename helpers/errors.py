"""How a step may refuse: the input was wrong, a claim did not hold, or a notebook's cell failed."""

from __future__ import annotations  # an older Python must get as far as its refusal

from pathlib import Path


class UserError(ValueError):
    """Bad input. The message says what was wrong, what was expected and what to do.

    Commands print it without a traceback and exit with code 2.
    """


class ProofError(RuntimeError):
    """A step did not do what it claims; what it wrote must not be trusted.

    Attributes:
        check: name of the check, as it appears in ``proof.json``.
        expected: what the check asked for, in words or as a number.
        found: what was there instead.
    """

    def __init__(self, check: str, expected: object, found: object, mend: str) -> None:
        self.check, self.expected, self.found = check, expected, found
        super().__init__(f"{check}: expected {expected}, found {found}. {mend}")


class CellFailed(RuntimeError):
    """A notebook's cell raised an exception; the message names notebook, cell and error."""


def unreachable(source: str | Path, what: str, error: Exception) -> UserError:
    """Word a failed load for the reader: a damaged folder or a hub that cannot be reached."""
    reason = (
        str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    )
    if Path(source).is_dir():
        return UserError(f"The {what} in {source} cannot be read ({reason}). Fetch it again.")
    return UserError(
        f"No {what} called {source!r}: there is no such folder and the Hugging Face hub did not "
        f"give one ({reason}). Use 'minilm', a folder, or a hub name where there is a network."
    )
