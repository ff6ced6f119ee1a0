"""Write a dense model in int8 without training it, to have something to compare with.

`python -m helpers quantize runs/dense --method nncf --output_dir runs/dense-nncf`; the data it was
trained on, which sets the ranges and measures the result, is looked up in its `run.json`.
"""

from dataclasses import dataclass

from helpers.commands import parse, print_json, with_first
from helpers.commands.arguments import JsonArgument, flag
from helpers.commands.export import recorded_data
from helpers.errors import UserError
from helpers.stops import Checkpoint


@dataclass
class QuantizeArguments:
    """What is quantized, how, and where to."""

    model_name_or_path: str | None = flag(
        None, "folder of the finished checkpoint; may stand first, without --model_name_or_path"
    )
    output_dir: str | None = flag(None, "folder for the int8 model")
    method: str = flag("onnxruntime", "'onnxruntime' (writes ONNX) or 'nncf' (for OpenVINO)")
    overwrite_output_dir: bool = flag(False, "replace what that folder holds")


def main(argv: list[str]) -> int:
    """Quantize as the flags say; print the metrics before and after, and one JSON line if asked."""
    from helpers.peers import quantize_after_training

    argv = with_first(argv, "--model_name_or_path")
    data_type, known = recorded_data(argv)
    types = (QuantizeArguments, data_type, JsonArgument)
    asked, data, output = parse("quantize", types, argv, **known)
    if not asked.model_name_or_path or not asked.output_dir:
        raise UserError("Give the checkpoint's folder and --output_dir.")
    source = Checkpoint.load(asked.model_name_or_path)
    note = quantize_after_training(
        source,
        data.load(),
        asked.output_dir,
        method=asked.method,
        overwrite=asked.overwrite_output_dir,
    )
    print(f"{note['rows']:,} rows; fp32: {note['fp32']}")
    print(f"int8 on {note['engine']}: {note['metrics']}")
    print_json(output.json, {"output_dir": asked.output_dir, **note})
    return 0
