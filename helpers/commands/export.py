"""Export a finished checkpoint to ONNX and prove the export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.commands import parse, print_json, with_first
from helpers.commands.arguments import (
    FORMAT_HELP,
    DataArguments,
    JsonArgument,
    TextArguments,
    flag,
)
from helpers.commands.recorded import recorded_flags, recorded_of
from helpers.commands.running import refuse_export
from helpers.errors import UserError
from helpers.stops import Checkpoint, is_or_holds, refuse_occupied


@dataclass
class ExportArguments:
    """What is exported, and where to."""

    model_name_or_path: str | None = flag(
        None, "folder of the finished checkpoint; may stand first, without --model_name_or_path"
    )
    onnx_export_path: str | None = flag(None, "folder for the ONNX model and its proof")
    onnx_export_format: str = flag("deepsparse", FORMAT_HELP)
    overwrite_output_dir: bool = flag(False, "replace what that folder holds")


def main(argv: list[str]) -> int:
    """Export as the flags say; print the proof, and one JSON line if asked."""
    import pandas as pd

    from helpers.export import check_form, export_onnx

    argv = with_first(argv, "--model_name_or_path")
    data_type, known = recorded_data(argv)
    types = (ExportArguments, data_type, JsonArgument)
    where, data, output = parse("export", types, argv, **known)
    if not where.model_name_or_path or not where.onnx_export_path:
        raise UserError("Give the checkpoint's folder and --onnx_export_path.")
    check_form(where.onnx_export_format)
    check_folders(where)
    source = Checkpoint.load(where.model_name_or_path)
    made = export_onnx(
        source,
        data.measured().load().with_labels(source.run["labels"]),
        where.onnx_export_path,
        form=where.onnx_export_format,
        overwrite=where.overwrite_output_dir,
    )
    print(pd.DataFrame(made.proof["checks"]).to_string(index=False))
    print_json(output.json, {"onnx": str(made.file), "checks": made.proof["checks"]})
    return 0


def recorded_data(argv: list[str]) -> tuple[type[DataArguments], dict[str, Any]]:
    """Return the flags that name the data of a checkpoint, and what it says about them itself."""
    run = recorded_of(argv)
    data_type = data_arguments(run.get("kind"))
    return data_type, recorded_flags(run, data_type, argv)


def data_arguments(kind: str | None) -> type[DataArguments]:
    """Return the flags that name data for a kind of task.

    Raises:
        UserError: for an encoder that is a start for other tasks.
    """
    from helpers.commands.run_ner import TokenArguments
    from helpers.commands.run_qa import QuestionArguments

    refuse_export({"MaskedLanguageModel": "run_mlm", "Upstream": "sparsify_upstream"}.get(kind))
    kinds = {"QuestionAnswering": QuestionArguments, "TokenClassification": TokenArguments}
    return kinds.get(kind, TextArguments)


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
    if is_or_holds(target, source):
        raise UserError(
            f"--onnx_export_path {target} is or holds the checkpoint {source}, which would be "
            "overwritten. Expected another folder."
        )
    # A proven export of this very checkpoint is taken up as it is; `export_onnx` looks at it.
    if not (target / "proof.json").is_file():
        refuse_occupied(target, where.overwrite_output_dir)
