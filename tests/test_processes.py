"""Two real processes (gloo): one model, one writer, the same result as one process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import models, processes
from helpers.__main__ import main
from helpers.environment import REPOSITORY
from helpers.stops import Checkpoint

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ROWS, EPOCHS = 64, 32

# Two processes see different things: what do they agree on, and is a drift noticed?
FAULTS = """
import json, sys
import torch
from accelerate import PartialState
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver
from helpers import processes
from helpers.errors import ProofError

rank = PartialState(cpu=True).process_index
rounding = FakeQuantize(MovingAverageMinMaxObserver, quant_min=0, quant_max=255)
unused = FakeQuantize(MovingAverageMinMaxObserver, quant_min=0, quant_max=255)
rounding(torch.tensor([0.0, 1.0 + 2 * rank]))
network = torch.nn.Sequential(torch.nn.Linear(2, 2), rounding, unused)
with torch.no_grad():
    network[0].weight.fill_(1.0)
    network[0].bias.fill_(1.0)
processes.check_same_everywhere(network)
processes.average_ranges(network)
found = {"max": rounding.activation_post_process.max_val.item(), "scale": rounding.scale.item()}
found["agreed"] = processes.agreed(rank)
with torch.no_grad():
    network[0].weight[0, 0] += rank
try:
    processes.check_same_everywhere(network)
except ProofError as error:
    found["drift"] = str(error)
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump(found, file)
# A process that ends inside the group now and then takes gloo's threads down with an abort.
with processes.together():
    torch.distributed.barrier()
"""

# Two processes that draw random numbers of their own between epochs, as dropout does.
ORDERS = """
import json, sys
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments
from helpers.row_order import RowOrder

class Ours(Trainer):
    def _get_train_sampler(self):
        return RowOrder(self)

rows = Dataset.from_dict({"input_ids": [[row] * (1 + row % 7) for row in range(60)]})

def trainer_of(kind, grouped):
    args = TrainingArguments(
        sys.argv[1], use_cpu=True, group_by_length=grouped, report_to=[],
        per_device_train_batch_size=3, remove_unused_columns=False,
    )
    collator = lambda batch: torch.tensor([row["input_ids"][0] for row in batch])
    return kind(torch.nn.Linear(1, 1), args, collator, train_dataset=rows)

trainers = {
    "ours": trainer_of(Ours, False),
    "ours by length": trainer_of(Ours, True),
    "theirs by length": trainer_of(Trainer, True),
}
seen = {}
for name, trainer in trainers.items():
    args, loader = trainer.args, trainer.get_train_dataloader()
    orders = seen[name] = []
    for epoch in range(2):
        trainer.state.epoch = float(epoch)
        loader.set_epoch(epoch)
        torch.rand(1 + 5 * args.process_index)
        orders.append(torch.cat(list(loader)).tolist())
with open(f"{sys.argv[1]}/{args.process_index}.json", "w") as file:
    json.dump(seen, file)
trainer.accelerator.wait_for_everyone()
"""


@pytest.fixture(scope="module")
def flags(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the flags of a run without chance: no dropout, and all rows in every batch."""
    folder = tmp_path_factory.mktemp("plain")
    shutil.copytree(tiny_model, folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    nouns = {"sea": ["wave", "boat", "fish", "salt"], "sky": ["cloud", "bird", "star", "wind"]}
    rows = [f"a {word} and {i},{name}" for i in range(12) for name in nouns for word in nouns[name]]
    for name, part in (("train", rows[:ROWS]), ("validation", rows[ROWS:])):
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *part]) + "\n")
    return [
        *("run_glue", "--model_name_or_path", str(folder / "model"), "--max_seq_length", "16"),
        *("--train_file", str(folder / "train.csv"), "--json"),
        *("--validation_file", str(folder / "validation.csv"), "--disable_tqdm", "true"),
        *("--recipe", "minilm-6layers_prune80_quant"),
        *("--recipe_args", f"num_epochs={EPOCHS},init_lr=0.002"),
    ]


@pytest.fixture(scope="module")
def one_and_two(
    flags: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkpoint, Checkpoint, str]:
    """Return the same run by one process and by two, and what the two printed."""
    folder = tmp_path_factory.mktemp("runs")
    one = ["--output_dir", str(folder / "one"), "--per_device_train_batch_size", str(ROWS)]
    assert main([*flags, *one]) == 0
    two = ["--output_dir", str(folder / "two"), "--per_device_train_batch_size", str(ROWS // 2)]
    printed = launch("-m", "helpers", *flags, *two).stdout
    return Checkpoint.load(folder / "one"), Checkpoint.load(folder / "two"), printed


def launch(*command: str) -> subprocess.CompletedProcess:
    """Run a command in two real processes."""
    return subprocess.run(
        [*LAUNCHER, *command],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_two_processes_do_what_one_does(one_and_two: tuple[Checkpoint, Checkpoint, str]) -> None:
    one, two, _ = one_and_two
    assert (one.run["processes"], two.run["processes"]) == (1, 2)
    assert one.run["steps"] == two.run["steps"] == EPOCHS
    assert one.run["quantized_modules"] == two.run["quantized_modules"] > 0
    assert abs(one.metrics["accuracy"] - two.metrics["accuracy"]) <= 0.1
    rates = [
        [row["learning_rate"] for row in made.run["history"] if "learning_rate" in row]
        for made in (one, two)
    ]
    assert rates[0] == pytest.approx(rates[1])
    networks = [dict(models.load_model(made).named_parameters()) for made in (one, two)]
    pruned = [name for name in networks[0] if "encoder.layer" in name and "weight" in name]
    pruned = [name for name in pruned if "LayerNorm" not in name]
    same = [((networks[0][n] == 0) == (networks[1][n] == 0)).float().mean() for n in pruned]
    assert len(same) == 12
    assert min(same) > 0.98, "a weight or two may change sides on the last bit of a sum"


def test_one_of_two_writes_and_speaks(one_and_two: tuple[Checkpoint, Checkpoint, str]) -> None:
    _, two, printed = one_and_two
    assert [child.name for child in two.folder.parent.iterdir() if child.name[0] == "."] == []
    assert json.loads(printed.splitlines()[-1])["metrics"] == two.metrics
    assert printed.count(str(two.folder)) == 2, "once in words, once in JSON"


def test_bad_input_is_said_once(flags: list[str], tmp_path: Path) -> None:
    failed = launch("-m", "helpers", *flags, "--output_dir", str(tmp_path), "--no_such_flag")
    assert failed.returncode != 0
    assert failed.stderr.count("error: ") == 1
    assert "exitcode  : 2" in failed.stderr


def answers(script: str, folder: Path) -> tuple[dict, dict]:
    """Run a script in two real processes, and return what each of them found."""
    (folder / "script.py").write_text(script)
    done = launch(str(folder / "script.py"), str(folder))
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    return first, second


def test_two_processes_share_the_rows_of_every_epoch(tmp_path: Path) -> None:
    first, second = answers(ORDERS, tmp_path)
    for name in ("ours", "ours by length"):
        epochs = [sorted(a + b) for a, b in zip(first[name], second[name], strict=True)]
        assert epochs == [list(range(60))] * 2
        assert first[name][0] != first[name][1]
    # The fault: the Trainer's own order, by the state that dropout draws from.
    name = "theirs by length"
    assert len({*first[name][1], *second[name][1]}) < 60


def test_ranges_are_shared_and_drift_is_noticed(tmp_path: Path) -> None:
    first, second = answers(FAULTS, tmp_path)
    assert first == second
    assert first["max"] == pytest.approx(2.0), "the mean of 1 and 3"
    assert first["scale"] == pytest.approx(2.0 / 255)
    assert first["agreed"] == 0
    assert "the same weights and masks in all 2 processes, found 2 different" in first["drift"]


def test_alone_nothing_is_shared() -> None:
    processes.check_same_everywhere(torch.nn.Linear(2, 2))
    processes.average_ranges(torch.nn.Linear(2, 2))
    assert processes.agreed("mine") == "mine"
