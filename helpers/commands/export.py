"""Export a finished checkpoint to ONNX and prove the export."""

from dataclasses import dataclass
from pathlib import Path

from helpers.commands import parse, print_json
from helpers.commands.arguments import DataArguments, JsonArgument, flag
from helpers.errors import UserError
from helpers.stops import Checkpoint, refuse_occupied


@dataclass
class ExportArguments:
    """What is exported, and where to."""

    model_name_or_path: str | None = flag(
        None, "folder of the finished checkpoint; may stand first, without --model_name_or_path"
    )
    onnx_export_path: str | None = flag(None, "folder for the ONNX model and its proof")
    overwrite_output_dir: bool = flag(False, "replace what that folder holds")


def main(argv: list[str]) -> int:
    """Export as the flags say; print the proof, and one JSON line if asked."""
    import pandas as pd

    from helpers.export import export_onnx

    if argv and not argv[0].startswith("-") and not argv[0].endswith((".json", ".yaml", ".yml")):
        argv = ["--model_name_or_path", *argv]
    types = (ExportArguments, DataArguments, JsonArgument)
    where, data, output = parse("export", types, argv)
    if not where.model_name_or_path or not where.onnx_export_path:
        raise UserError("Give the checkpoint's folder and --onnx_export_path.")
    check_folders(where)
    source = Checkpoint.load(where.model_name_or_path)
    made = export_onnx(
        source, data.load(), where.onnx_export_path, overwrite=where.overwrite_output_dir
    )
    print(pd.DataFrame(made.proof["checks"]).to_string(index=False))
    print_json(output.json, {"onnx": str(made.file), "checks": made.proof["checks"]})
    return 0


def check_folders(where: ExportArguments) -> None:
    """Refuse folders that cannot be read or written now, before any data is loaded.

    Raises:
        UserError: no such checkpoint; an output that is a file, holds something else, or holds the
            checkpoint itself, which writing would delete.
    """
    source, target = Path(where.model_name_or_path), Path(where.onnx_export_path)
    if not source.is_dir():
        raise UserError(
            f"There is no folder {source}. Expected the --output_dir of a finished run."
        )
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise UserError(
            f"--onnx_export_path {target} is or holds the checkpoint {source}, which would be "
            "overwritten. Expected another folder."
        )
    # A proven export of this very checkpoint is taken up as it is; `export_onnx` looks at it.
    if not (target / "proof.json").is_file():
        refuse_occupied(target, where.overwrite_output_dir)
