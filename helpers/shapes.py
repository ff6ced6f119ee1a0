"""Models of a known shape with random weights, sparse and int8 as a recipe makes them.

Why: how fast an engine runs a model depends on its shape, its zeros and its precision, not on what
it has learnt. So a size that nobody wants to train on a laptop can be timed on one.

How: SparseML applies the whole recipe at once; the int8 ranges come from a few random texts. Such a
model answers nothing, and its export says so.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import (
    benchmark,
    compat,
    environment,
    export,
    export_proof,
    stops,
    token_batches,
)
from helpers.errors import UserError
from helpers.stops import OnnxModel

if TYPE_CHECKING:
    import torch

    from helpers.recipes import Recipe

# What differs from BERT-base, whose sizes are Transformers' own defaults.
SHAPES: dict[str, dict[str, int]] = {
    "minilm": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "bert-base": {},
}
TEXTS = (16, 64)  # random words, [texts, tokens]


def random_model(shape: str, recipe: "Recipe | None" = None, seed: int = 0) -> "torch.nn.Module":
    """Return a classifier of two classes with random weights, after a recipe if one is given.

    Raises:
        UserError: for a shape there is none of, or a recipe that does not fit it.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    if shape not in SHAPES:
        raise UserError(f"No shape {shape!r}. Expected one of {', '.join(SHAPES)}.")
    torch.manual_seed(seed)
    model = BertForSequenceClassification(BertConfig(num_labels=2, **SHAPES[shape])).eval()
    if recipe is None:
        return model
    from helpers.recipes import check_against

    check_against(recipe, model)
    compat.make_attention_quantizable(model)
    recipe.manager().apply(model)
    observe(model)
    return model.eval()


def observe(model: "torch.nn.Module") -> None:
    """Set the int8 ranges by random texts; a recipe that is applied at once leaves them empty."""
    import torch
    from torch.ao.quantization import disable_observer, enable_observer

    model.apply(enable_observer)
    with torch.no_grad():
        model(
            **{name: torch.from_numpy(ids) for name, ids in benchmark.token_inputs(TEXTS).items()}
        )
    model.apply(disable_observer)


def export_random(
    shape: str,
    output_dir: Path | str,
    *,
    recipe: "Recipe | None" = None,
    form: str = "deepsparse",
    overwrite: bool = False,
) -> OnnxModel:
    """Export a random model; zeros, int8 products and logits are held to PyTorch's.

    Args:
        shape: a key of `SHAPES`.
        output_dir: the export's folder, with `proof.json`.
        recipe: what makes it sparse or int8.
        form: of int8, as in `export.export_onnx`.
        overwrite: replace what `output_dir` holds.

    Raises:
        UserError: for an unknown shape or form, and an output folder that is occupied.
        ProofError: if a file is not the model.
    """
    export.check_form(form)
    stops.refuse_occupied(Path(output_dir).resolve(), overwrite)
    model = random_model(shape, recipe)
    quantized = bool(recipe and recipe.has_quantization)
    files = export.files_of(form, quantized=quantized)
    with stops.writing(Path(output_dir).resolve(), overwrite=overwrite) as folder:
        export.write_forms(model, folder, files, ("logits",), quantized=quantized)
        checks = [row for name in files for row in prove(folder / name, model, files[name])]
        note = {"source": f"random weights, {shape}", "recipe": recipe.name if recipe else None}
        note |= {"forms": files, "checks": checks}
        stops.write_note(folder, "proof.json", {**note, **environment.describe()})
    return OnnxModel.load(output_dir)


def prove(file: Path, model: "torch.nn.Module", form: str) -> list[dict[str, Any]]:
    """Hold a file to the model in all but a metric, which there is none of."""
    checks = export_proof.check_graph(file, model, form)
    texts = benchmark.token_inputs(TEXTS)
    expected = token_batches.run_torch(model, [texts])
    int8 = checks[0]["found"]
    for engine in export_proof.ENGINES[form]:
        found = export_proof.answers_of(file, engine, [texts])
        if found is None:
            checks.append(export_proof.not_here(engine))
            continue
        checks.append(export_proof.check_logits(engine, found, expected, quantized=int8 > 0))
        if form == "qdq":
            checks.append(export_proof.check_int8_run(file, engine, texts, int8))
    return checks
