"""Time one sparse int8 model in many forms of its graph on DeepSparse, which is all made for it.

    python tools/graph_forms.py            print what each form is worth
    python tools/graph_forms.py --store    the same, stored in results/graph_forms.json

Why: "write the graph another way" is the first advice to who finds a sparse model slow. Here it is
measured, for MiniLM 90 % int8 as the notebooks train it, and for BERT-base's shape, whose export
results/README.md makes. All forms of a model are timed in one interleaved run.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from helpers import (
    benchmark,
    engines,
    environment,
    graph_forms,
    path,
    result_tables,
    results,
    tasks,
    tiers,
    token_batches,
)
from helpers.measurements import Measurement

STOP, TASK = "prune90_quant_distill", "docs-library"
BERT_BASE = environment.runs_folder() / "shapes" / "sparse90-int8" / "model.onnx"
ROUNDS = {"minilm": 60, "bert-base": 24}
BATCH_SIZES = {"minilm": (1, 16), "bert-base": (1,)}


def write_forms(file: Path, folder: Path) -> dict[str, Path]:
    """Write a model's graph in every form; return name to file."""
    model = onnx.load(str(file))
    made = {graph_forms.FIRST: model}
    made |= {form: graph_forms.rewritten(model, form) for form in graph_forms.FORMS}
    files = {form: folder / f"{number}.onnx" for number, form in enumerate(made)}
    for form, file in files.items():
        onnx.save(made[form], str(file))
    return files


def timed(files: dict[str, Path], name: str) -> dict[str, dict[str, Any]]:
    """Return by form, and batch size, what DeepSparse takes; or why there is no number."""
    found: dict[str, dict[str, Any]] = {form: {} for form in files}
    for row in benchmark.measure(files, ["deepsparse"], BATCH_SIZES[name], rounds=ROUNDS[name]):
        found[row.model][str(row.batch_size)] = milliseconds(row)
    return found


def milliseconds(row: Measurement) -> dict[str, Any]:
    """Return the times of one row, or its error."""
    if row.error:
        return {"error": row.error}
    return {name: getattr(row, name) for name in ("median_ms", "p10_ms", "p90_ms", "rounds")}


def accuracies(files: dict[str, Path]) -> dict[str, float]:
    """Return each form's accuracy on the validation rows that exports are proven on."""
    task = tasks.load_task(TASK)
    batches, references = token_batches.proof_batches(path.checkpoint(STOP, task), task)
    found = {}
    for form, file in files.items():
        outputs = engines.predict(file, "onnxruntime", batches)[: len(references)]
        found[form] = float(np.round(task.metrics(outputs, references)["accuracy"], 4))
    return found


def every_form(file: Path, name: str, *, scored: bool) -> dict[str, dict[str, Any]]:
    """Return by form what a model in it takes at each batch size, and how good it is."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_forms(file, Path(folder))
        accuracy = accuracies(files) if scored else {}
        times = timed(files, name)
    return {form: {"accuracy": accuracy.get(form), "ms": times[form]} for form in files}


def main() -> None:
    """Write, score and time every form of both models; print, or store."""
    if not BERT_BASE.is_file():
        sys.exit(f"{BERT_BASE} is missing. results/README.md says which command makes it.")
    trained = path.onnx_model(STOP, tasks.load_task(TASK)).file
    models = {
        "minilm": every_form(trained, "minilm", scored=True),
        "bert-base": every_form(BERT_BASE, "bert-base", scored=False),
    }
    numbers = {form: about.numbers for form, about in graph_forms.FORMS.items()}
    content = {"forms": models, "numbers": numbers, **environment.describe()}
    content["proof_rows"] = tiers.current().proof_examples
    print(result_tables.forms_table(content))
    if "--store" in sys.argv[1:]:
        results.write("graph_forms", content, "python tools/graph_forms.py --store")


if __name__ == "__main__":
    main()
