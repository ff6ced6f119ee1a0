"""Export a finished checkpoint to ONNX and prove the export."""

from dataclasses import dataclass

from helpers.commands import parse, print_json
from helpers.commands.arguments import DataArguments, JsonArgument, flag
from helpers.errors import UserError
from helpers.stops import Checkpoint


@dataclass
class ExportArguments:
    """What is exported, and where to."""

    model_name_or_path: str | None = flag(None, "folder of the finished checkpoint")
    onnx_export_path: str | None = flag(None, "folder for the ONNX model and its proof")
    overwrite_output_dir: bool = flag(False, "replace what that folder holds")


def main(argv: list[str]) -> int:
    """Export as the flags say; print the proof, and one JSON line if asked."""
    import pandas as pd

    from helpers.export import export_onnx

    if argv and not argv[0].startswith("-"):
        argv = ["--model_name_or_path", *argv]
    types = (ExportArguments, DataArguments, JsonArgument)
    where, data, output = parse("export", types, argv)
    if not where.model_name_or_path or not where.onnx_export_path:
        raise UserError("Give the checkpoint's folder and --onnx_export_path.")
    source = Checkpoint.load(where.model_name_or_path)
    made = export_onnx(
        source, data.load(), where.onnx_export_path, overwrite=where.overwrite_output_dir
    )
    print(pd.DataFrame(made.proof["checks"]).to_string(index=False))
    print_json(output.json, {"onnx": str(made.file), "checks": made.proof["checks"]})
    return 0
