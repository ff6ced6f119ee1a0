"""Show zeros, precision and bytes of a checkpoint or an ONNX file, layer by layer.

`python -m helpers inspect DIR` for a checkpoint or an export, ours or anybody's;
`python -m helpers inspect model.onnx` for a single file.
"""

from dataclasses import dataclass
from pathlib import Path

from helpers.commands import parse, print_json, with_first
from helpers.commands.arguments import JsonArgument, flag
from helpers.errors import UserError


@dataclass
class InspectArguments:
    """What is looked into."""

    path: str | None = flag(
        None, "folder of a checkpoint or export, or an .onnx file; may stand first, without --path"
    )


def main(argv: list[str]) -> int:
    """Print one row a weight matrix, totals and warnings; one JSON line if asked."""
    from helpers.inspection import inspect
    from helpers.models import resolve_model

    argv = with_first(argv, "--path")
    asked, output = parse("inspect", (InspectArguments, JsonArgument), argv)
    if not asked.path:
        raise UserError("Nothing to look into. Expected: python -m helpers inspect DIR|FILE.onnx")
    known = Path(asked.path).exists()
    found = inspect(asked.path if known else resolve_model(asked.path))
    table = found.weights.assign(shape=["x".join(map(str, s)) for s in found.weights["shape"]])
    percent = "{:.1%}".format
    print(table.to_string(index=False, formatters={"zeros": percent, "blocks": percent}), "\n")
    print("zeros: share of the matrix; blocks: share that are whole 1x4 blocks of zeros")
    print("\n".join(totals(found.totals)))
    print("\n".join(f"warning: {text}" for text in found.warnings) or "no warnings")
    rows = found.weights.to_dict("records")
    report = {"path": asked.path, "kind": found.kind, "weights": rows, "totals": found.totals}
    print_json(output.json, {**report, "warnings": found.warnings})
    return 0


def totals(figures: dict[str, float | None]) -> list[str]:
    """Return the totals, a line each."""
    zeros = figures["encoder_zeros"]
    return [
        f"parameters         {figures['parameters']:,}",
        f"zeros in encoder   {'no encoder found' if zeros is None else f'{zeros:.1%}'}",
        f"int8 products      {figures['int8_products']}",
        f"size of file       {figures['file_bytes'] / 1e6:.2f} MB",
        f"compressed by zip  {figures['zipped_bytes'] / 1e6:.2f} MB",
    ]
