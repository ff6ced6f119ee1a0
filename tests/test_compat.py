"""Workarounds: each one works, and what it works around is still there when it is taken out."""

import copy
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import compat, export
from helpers.environment import REPOSITORY, locked_versions
from helpers.stops import Checkpoint

# No call gets out, and each attempt is counted.
NO_NETWORK = """
import socket, sys
calls = []
def refuse(self, address, *rest):
    calls.append(str(address))
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = refuse
def lookup(*where, **how):
    calls.append(str(where))
    raise socket.gaierror("no network in this test")
socket.getaddrinfo = lookup
"""


def run_python(code: str, folder: Path | None = None) -> str:
    """Run code in a fresh Python that knows nothing of this process's settings; return its output.

    It stands in `folder` if one is given, in the repository otherwise.
    """
    ours = {name for name in os.environ if name.startswith(("NM_", "TRANSFORMERS_"))}
    clean = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder or REPOSITORY,
        env={**clean, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_helpers_is_light_and_stays_off_the_network() -> None:
    found = json.loads(
        run_python(
            NO_NETWORK + "import helpers, json\n"
            "heavy = {'torch', 'sparseml', 'transformers', 'datasets', 'deepsparse', 'onnx'}\n"
            "print(json.dumps([sorted(heavy & set(sys.modules)), calls]))"
        )
    )
    assert found == [[], []]


ANALYTICS = """
import json, os, time
from sparseml.analytics import sparseml_analytics
from sparsezoo.analytics import sparsezoo_analytics
time.sleep(0.2)
print(json.dumps([bool(sparseml_analytics._disabled), bool(sparsezoo_analytics._disabled), calls]))
"""


def test_analytics_are_off_before_the_stack_is_imported() -> None:
    with_fix = run_python(NO_NETWORK + "import helpers\n" + ANALYTICS)
    assert json.loads(with_fix.splitlines()[-1]) == [True, True, []]


def test_without_the_variable_the_stack_calls_home() -> None:
    without = run_python(NO_NETWORK + ANALYTICS)
    # Offline it finds no country to ask about and stays quiet; asking is a call already.
    assert json.loads(without.splitlines()[-1])[-1], "if this fails, the fix is no longer needed"


def test_a_readers_own_choice_is_kept() -> None:
    code = "import os; os.environ['TRANSFORMERS_VERBOSITY'] = 'debug'; import helpers; print("
    assert run_python(code + "os.environ['TRANSFORMERS_VERBOSITY'])") == "debug\n"


LOGGER = """
import sys
from helpers import compat
{fix}
from sparseml.pytorch.utils.logger import PythonLogger
PythonLogger().log_scalar("loss", 1.0, 1)
"""


@pytest.mark.parametrize(("fix", "left"), [("compat.quiet_sparseml()", []), ("", ["sparse_logs"])])
def test_no_log_folder_appears_where_one_stands(fix: str, left: list[str], tmp_path: Path) -> None:
    run_python(LOGGER.format(fix=fix), tmp_path)
    assert [child.name for child in tmp_path.iterdir()] == left


def test_sparseml_is_quiet() -> None:
    noise = "import logging, helpers.compat as c\n{}\nimport sparseml.log\n"
    show = "print(logging.getLogger('sparseml').level)"
    assert run_python(noise.format("c.quiet_sparseml()") + show) == f"{40}\n"
    assert run_python(noise.format("") + show) != f"{40}\n", "the import sets it back"


def tiny_classifier() -> torch.nn.Module:
    """Return a random one-layer BERT classifier."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "intermediate_size": 16, "vocab_size": 64}
    return BertForSequenceClassification(
        BertConfig(num_hidden_layers=1, num_attention_heads=2, **sizes)
    )


def test_the_exporter_is_the_one_that_knows_fake_quantization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_classifier()
    export.write_graph(model, tmp_path / "with.onnx", quantized=False)
    assert (tmp_path / "with.onnx").stat().st_size > 0
    monkeypatch.setattr(compat, "torchscript_export_options", dict)
    with pytest.raises(Exception, match="onnxscript"):
        export.write_graph(model, tmp_path / "without.onnx", quantized=False)


def test_attention_is_made_quantizable_for_bert_only() -> None:
    model = tiny_classifier()
    attention = model.bert.encoder.layer[0].attention
    before = type(attention.self)
    compat.make_attention_quantizable(model)
    assert type(attention.self) is not before
    other = tiny_classifier()
    other.config.model_type = "distilbert"
    compat.make_attention_quantizable(other)
    assert type(other.bert.encoder.layer[0].attention.self) is before


def quantized_tables() -> list[torch.nn.Embedding]:
    """Return two equal embedding tables under QAT: SparseML's own, and with our order of steps."""
    from sparseml.pytorch.sparsification.quantization import helpers as quantization

    compat.round_rows_looked_up()
    asymmetric = quantization.QConfigProperties()
    asymmetric.symmetric_weights = False
    tables = []
    ours = quantization._prepare_qat_embedding
    for prepare in (ours.__wrapped__, ours):
        torch.manual_seed(0)
        table = torch.nn.Embedding(64, 8, padding_idx=0)
        prepare(table, quantization.get_qat_qconfig(asymmetric))
        tables.append(table)
    return tables


def test_rounding_looked_up_rows_gives_what_rounding_the_table_gives() -> None:
    plain, quick = quantized_tables()
    rows = torch.tensor([[1, 5, 5], [63, 0, 2]])
    for epoch in range(4):
        for table in (plain, quick):
            table.weight_fake_quant.enable_observer() if epoch < 2 else (
                table.weight_fake_quant.disable_observer()
            )
            table.zero_grad()
            (table(rows) ** 2).sum().backward()
            with torch.no_grad():
                table.weight -= 0.3 * table.weight.grad
        assert torch.equal(plain(rows), quick(rows))
        assert torch.allclose(plain.weight.grad, quick.weight.grad)
        assert torch.equal(plain.weight_fake_quant.scale, quick.weight_fake_quant.scale)
        assert torch.equal(plain.weight_fake_quant.zero_point, quick.weight_fake_quant.zero_point)


def test_a_copy_of_a_quantized_table_uses_its_own_weights() -> None:
    _, quick = quantized_tables()
    copied = copy.deepcopy(quick)
    quick.weight.data.zero_()
    rows = torch.tensor([1, 2])
    assert copied(rows).abs().sum() > 0
    assert copied.eval()(rows).abs().sum() > 0


def test_training_rounds_rows_and_evaluation_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The export folds a rounded table into int8; it would not know rounded rows."""
    _, quick = quantized_tables()
    rounded = []
    rows_only = compat._look_up_and_round
    monkeypatch.setattr(
        compat, "_look_up_and_round", lambda *a: rounded.append("rows") or rows_only(*a)
    )
    rows = torch.tensor([1, 2])
    quick(rows)
    assert rounded == ["rows"]
    quick.eval()(rows)
    assert rounded == ["rows"]


def test_the_newer_quantization_needs_an_open_qconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparseml.pytorch.sparsification.quantization import quantization_scheme

    import helpers

    compat.keep_scheme_on_qconfig()
    ours = quantization_scheme._get_qconfig
    compat.keep_scheme_on_qconfig()
    assert quantization_scheme._get_qconfig is ours, "once is enough"
    manager = helpers.load_recipe("minilm-6layers_quant_per_channel").manager
    manager().apply_structure(tiny_classifier(), epoch=9.0)
    monkeypatch.setattr(compat, "keep_scheme_on_qconfig", lambda: None)
    monkeypatch.setattr(quantization_scheme, "_get_qconfig", ours.__wrapped__)
    with pytest.raises(AttributeError, match="no attribute 'quantization_scheme'"):
        manager().apply_structure(tiny_classifier(), epoch=9.0)


def test_the_trainer_puts_the_mends_in() -> None:
    """In a fresh process, since tests of the mends put them in themselves."""
    code = (
        "import os; os.environ.pop('MEMORY_BOUNDED', None)\n"
        "import torch; torch.cuda.is_available = lambda: False\n"  # one mend is for CPUs
        "import helpers.trainer\n"
        "from sparseml.pytorch.sparsification.pruning import ConstantPruningModifier as kept\n"
        "from sparseml.pytorch.sparsification.pruning import modifier_pruning_obs as obs\n"
        "from sparseml.pytorch.utils import GradSampler as sampler\n"
        "added = obs.EmpiricalBlockFisherInverse.add_grad\n"
        "mended = kept.check_mask_update, added, sampler.iter_module_backwards\n"
        "print([hasattr(one, '__wrapped__') for one in mended], os.environ['MEMORY_BOUNDED'])"
    )
    assert run_python(code).splitlines()[-1] == "[True, True, True] true"


def test_paths_given_to_sparseml_are_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compat.absolute("out/model") == str(tmp_path.resolve() / "out" / "model")


def test_quantized_weights_lie_where_sparseml_looks_for_them(
    dense: Checkpoint, sparse_int8: Checkpoint, tmp_path: Path
) -> None:
    """In a safetensors file SparseML sees no QAT, and goes on with random weights."""
    from safetensors.torch import save_file
    from sparseml.transformers import SparseAutoModel

    assert (dense.folder / "model.safetensors").is_file()
    assert not list(sparse_int8.folder.glob("*.safetensors"))
    state, reload_later = SparseAutoModel._loadable_state_dict(str(sparse_int8.folder))
    assert (state, reload_later) == (None, True)
    state = torch.load(sparse_int8.folder / compat.weight_file_name(True), weights_only=True)
    save_file(state, tmp_path / compat.weight_file_name(False))
    assert SparseAutoModel._loadable_state_dict(str(tmp_path)) == (None, False)


def test_setuptools_still_has_what_sparseml_imports() -> None:
    assert int(importlib.metadata.version("setuptools").split(".")[0]) < 80
    assert int(locked_versions()["setuptools"].split(".")[0]) < 80
    run_python("import pkg_resources")


@pytest.mark.parametrize(
    ("package", "version"),
    [("pyarrow", "17.0.0"), ("compressed-tensors", "0.4.0"), ("accelerate", "0.28.0")],
)
def test_pins_that_keep_the_stack_together_hold(package: str, version: str) -> None:
    assert locked_versions()[package] == version
    assert importlib.metadata.version(package) == version
