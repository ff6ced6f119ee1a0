"""Real engines in real child processes, and children that die, hang, refuse and cheat."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tiny_graphs import encoder

from helpers import engine_kinds, engines
from helpers.engine_child import Setup
from helpers.engine_process import check_threads
from helpers.engines import EngineError, open_engine, predict
from helpers.environment import REPOSITORY
from helpers.errors import ProofError, UserError

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
HERE = Path(__file__).stem
needs_deepsparse = pytest.mark.skipif(
    "deepsparse" in engines.missing_engines(), reason="DeepSparse is made for Linux"
)


class Fake:
    """The smallest engine: answers with zeros."""

    def prepare(self, model_path: Path, setup: Setup) -> None:
        """Remember the copy."""
        self.path, self.threads = model_path, setup.threads

    def run(self, inputs: dict[str, np.ndarray]) -> tuple[list[np.ndarray], float]:
        """Answer at once."""
        return [np.zeros((len(inputs["input_ids"]), 2))], 0.001

    def describe(self) -> dict[str, Any]:
        """Say where the copy lies."""
        return {"version": "0", "threads": self.threads, "path": str(self.path)}

    def int8_run(self) -> None:
        """Have no graph."""

    def close(self) -> None:
        """Hold nothing."""


class Aborts(Fake):
    """Dies as native code does."""

    def prepare(self, *_: object) -> None:
        """Say something on stderr, then abort."""
        os.write(2, b"native stack: kernel 42 is broken\n")
        os.abort()


class Hangs(Fake):
    """Never answers."""

    def run(self, inputs: dict[str, np.ndarray]) -> tuple[list[np.ndarray], float]:
        """Sleep past every limit."""
        time.sleep(600)
        return super().run(inputs)


class Refuses(Fake):
    """Raises an exception."""

    def prepare(self, *_: object) -> None:
        """Refuse every model."""
        raise ValueError("operator Foo is unknown")


class AnswersNan(Fake):
    """Computes nonsense."""

    def run(self, inputs: dict[str, np.ndarray]) -> tuple[list[np.ndarray], float]:
        """Answer with what is no number."""
        outputs, seconds = super().run(inputs)
        return [outputs[0] * np.nan], seconds


class Rewrites(Fake):
    """Finds the original model and writes to it."""

    def prepare(self, model_path: Path, setup: Setup) -> None:
        """Change the file named by the test."""
        with Path(os.environ["TEST_ORIGINAL"]).open("ab") as stream:
            stream.write(b"x")
        super().prepare(model_path, setup)


class RewritesItsCopy(Fake):
    """Does what DeepSparse does: overwrites the file it was given."""

    def prepare(self, model_path: Path, setup: Setup) -> None:
        """Overwrite the copy."""
        model_path.write_bytes(b"")
        super().prepare(model_path, setup)


def tiny_bert() -> Any:  # noqa: ANN401 - importing torch for a type would slow the children
    """Return a random 1-layer BERT classifier with 3 labels."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=3,
        return_dict=False,
    )
    return BertForSequenceClassification(config).eval()


class TinyTorch(engine_kinds.TorchEager):
    """Torch with another loader, given by its import path."""

    loader = "transformers:AutoModelForSequenceClassification.from_pretrained"


class TinyDistilBert(TinyTorch):
    """Another architecture, which has no token types."""

    def prepare(self, model_path: Path, setup: Setup) -> None:
        """Make one up."""
        from transformers import DistilBertConfig, DistilBertForSequenceClassification

        super().prepare(model_path, setup)
        config = DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64, num_labels=3)
        self.model = DistilBertForSequenceClassification(config).eval()


class TinyBf16(engine_kinds.TorchBf16):
    """The same in bf16."""

    loader = TinyTorch.loader


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny model."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_bert().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same model as ONNX, batch and sequence free."""
    import torch

    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    axes = {name: {0: "batch", 1: "sequence"} for name in INPUTS}
    torch.onnx.export(
        tiny_bert(),
        (torch.ones(1, 8, dtype=torch.int64),) * 3,
        str(file),
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_axes={**axes, "logits": {0: "batch"}},
        opset_version=14,
        dynamo=False,
    )
    return file


@pytest.fixture
def any_file(tmp_path: Path) -> Path:
    """Return a file that no fake engine looks into."""
    return encoder(tmp_path / "any.onnx")


def batches(count: int = 2) -> list[dict[str, np.ndarray]]:
    """Return random batches [2, 8]."""
    rng = np.random.default_rng(0)
    ones = np.ones((2, 8), dtype=np.int64)
    return [
        dict(zip(INPUTS, (rng.integers(1996, 20000, (2, 8)), ones, ones * 0), strict=True))
        for _ in range(count)
    ]


def torch_logits(count: int = 2) -> np.ndarray:
    """Return what the model itself says to the batches."""
    import torch

    model = tiny_bert()
    with torch.no_grad():
        found = [model(**{k: torch.from_numpy(v) for k, v in b.items()})[0] for b in batches(count)]
    return torch.cat(found).numpy()


def open_fake(name: str, file: Path, **options: float) -> engines.EngineProcess:
    """Open one of the classes above by its import path."""
    return open_engine(file, f"{HERE}:{name}", **options)


@pytest.mark.parametrize(
    "engine", ["onnxruntime", "openvino", pytest.param("deepsparse", marks=needs_deepsparse)]
)
def test_engines_give_the_models_logits_and_leave_the_file_alone(
    onnx_file: Path, engine: str
) -> None:
    before = onnx_file.read_bytes()
    found = predict(onnx_file, engine, batches(), num_threads=1)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(found, torch_logits(), atol=1e-4)
    assert onnx_file.read_bytes() == before


@needs_deepsparse
def test_deepsparse_describes_itself(onnx_file: Path) -> None:
    with open_engine(onnx_file, "deepsparse") as process:
        about = process.prepare(2, 8, 1)
    assert about["threads"] == 1
    assert about["supported_fraction"] == 1.0
    assert about["compile_seconds"] > 0


def test_memory_is_that_of_running_and_not_of_looking_at_the_graph(onnx_file: Path) -> None:
    peaks = {}
    for batch_size in (2, 20000):
        with open_engine(onnx_file, "onnxruntime") as process:
            process.prepare(batch_size, 8, 1)
            loaded = process.ask("peak_memory_mb")
            process.run({name: np.ones((batch_size, 8), dtype=np.int64) for name in INPUTS})
            peaks[batch_size] = process.ask("peak_memory_mb")
            assert peaks[batch_size] >= loaded
            assert process.ask("int8_run") == 0
            assert process.ask("peak_memory_mb") > peaks[batch_size], "a second session"
    assert peaks[20000] > peaks[2] + 5


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a child with its parent")
def test_a_paused_child_ends_with_its_parent(onnx_file: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from helpers.engines import open_engine\n"
        f"process = open_engine({str(onnx_file)!r}, '{HERE}:Fake')\n"
        "process.prepare(1, 8, 1)\n"
        "process.pause()\n"
        "print(process.process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    paths = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 10
    while is_alive(int(done.stdout)):
        assert time.monotonic() < deadline, "it would lie in memory for good"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Tell whether a process is there, and more than a name that nobody has asked about."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_torch_runs_a_checkpoint_folder(checkpoint: Path) -> None:
    found = predict(checkpoint, f"{HERE}:TinyTorch", batches(), num_threads=1)
    np.testing.assert_allclose(found, torch_logits(), atol=1e-5)


def test_torch_gives_a_model_no_inputs_that_it_has_not(checkpoint: Path) -> None:
    assert predict(checkpoint, f"{HERE}:TinyDistilBert", batches(), num_threads=1).shape == (4, 3)


def test_torch_in_bf16_says_so_and_is_near(checkpoint: Path) -> None:
    with open_engine(checkpoint, f"{HERE}:TinyBf16") as process:
        assert process.prepare(2, 8, 1)["precision"] == "bf16"
        (found,), _ = process.run(batches()[0])
    gap = np.abs(found - torch_logits()[:2]).max()
    assert 0 < gap < 0.05


def test_an_abort_is_an_error_with_signal_and_last_words(any_file: Path) -> None:
    reason = r"compiling \(SIGABRT\): native stack: kernel 42 is broken. .* fault of the engine"
    with (
        pytest.raises(EngineError, match=reason),
        open_fake("Aborts", any_file) as process,
    ):
        process.prepare(1, 8, 1)


def test_what_kills_a_child_from_outside_is_no_fault_of_the_engine(any_file: Path) -> None:
    with open_fake("Fake", any_file) as process:
        process.prepare(2, 8, 1)
        process.process.kill()
        with pytest.raises(EngineError, match=r"running \(SIGKILL\).*memory runs out") as caught:
            process.run(batches()[0])
    assert "fault of the engine" not in str(caught.value)


def test_a_hang_ends_at_the_time_limit_and_the_child_with_it(any_file: Path) -> None:
    with open_fake("Hangs", any_file, timeout=20) as process:
        process.prepare(1, 8, 1)
        process.timeout, child = 0.5, process.process
        with pytest.raises(EngineError, match="no answer in 0.5 s"):
            process.run(batches()[0])
        assert child.poll() is not None


def test_an_exception_is_the_reason(any_file: Path) -> None:
    with (
        pytest.raises(EngineError, match="ValueError: operator Foo is unknown"),
        open_fake("Refuses", any_file) as process,
    ):
        process.prepare(1, 8, 1)


def test_an_engine_that_writes_to_the_original_is_caught(
    any_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_ORIGINAL", str(any_file))
    with pytest.raises(ProofError, match="unchanged"):
        predict(any_file, f"{HERE}:Rewrites", batches(), num_threads=1)


def test_an_engine_may_spoil_its_copy_and_nothing_stays_behind(any_file: Path) -> None:
    before = any_file.read_bytes()
    with open_fake("RewritesItsCopy", any_file) as process:
        copy = Path(process.prepare(1, 8, 1)["path"])
        assert copy.is_file()
        child = process.process
    assert any_file.read_bytes() == before
    assert not copy.exists()
    assert child.poll() is not None


def test_a_paused_child_waits_and_goes_on(any_file: Path) -> None:
    with open_fake("Fake", any_file) as process:
        process.prepare(2, 8, 1)
        process.pause()
        process.timeout, limit = 0.3, process.timeout
        process._pipe.send(("run", (batches()[0],)))
        assert not process._pipe.poll(0.3)
        process.resume()
        assert process._pipe.poll(limit)


def test_bad_input_is_refused(any_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no model"):
        predict(tmp_path / "nowhere.onnx", "onnxruntime", batches())
    with pytest.raises(UserError, match="No engine 'tensorrt'"):
        predict(any_file, "tensorrt", batches())
    with pytest.raises(UserError, match="one shape"):
        predict(any_file, "onnxruntime", [*batches(), {"input_ids": np.ones((1, 9))}])
    with pytest.raises(UserError, match="4096 cores"):
        check_threads(4096)


def test_an_engine_that_is_not_installed_says_so(
    any_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.ENGINES, "absent", ("x:Y", "no_such_package_here"))
    assert "absent" not in engines.available_engines()
    with pytest.raises(UserError, match="no_such_package_here is not installed"):
        open_engine(any_file, "absent")
