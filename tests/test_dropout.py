"""Quick dropout is dropout: the same share, the same mean, the same gradient, no trace in eval."""

import pytest
import torch
from torch import nn

from helpers.dropout import Dropout, check_dropout, quicken_dropout, set_dropout
from helpers.errors import UserError

SHAPE = (64, 12, 33, 31)  # no multiple of four, so that the last number is cut


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_mean_are_those_of_dropout(p: float) -> None:
    torch.manual_seed(0)
    found = Dropout(p)(torch.ones(SHAPE))
    assert (found == 0).float().mean().item() == pytest.approx(p, abs=3e-3)
    assert found.mean().item() == pytest.approx(1, abs=0.02)
    assert found.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)


def test_neighbours_are_dropped_independently() -> None:
    """Four elements share one random number; none may tell about another."""
    torch.manual_seed(0)
    dropped = (Dropout(0.5)(torch.ones(400_000)) == 0).double()
    for distance in (1, 2, 3, 4):
        pair = torch.stack([dropped[:-distance], dropped[distance:]])
        assert abs(torch.corrcoef(pair)[0, 1].item()) < 0.01


def test_the_gradient_passes_where_the_value_passed() -> None:
    values = torch.randn(SHAPE, requires_grad=True)
    found = Dropout(0.3)(values)
    found.sum().backward()
    assert torch.allclose(found, values * values.grad)


def test_evaluation_and_zero_leave_the_input_alone() -> None:
    values = torch.randn(3, 5)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_a_seed_repeats_the_masks() -> None:
    runs = []
    for _ in range(2):
        torch.manual_seed(7)
        runs.append(Dropout(0.5)(torch.ones(100)))
    assert torch.equal(*runs)


def test_every_dropout_of_a_model_is_swapped() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2), nn.Sequential(nn.Dropout(0.1)))
    quicken_dropout(model)
    swapped = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    assert [(type(m), m.p) for m in swapped] == [(Dropout, 0.2), (Dropout, 0.1)]


@pytest.mark.parametrize(
    ("kind", "rounded"), [(Dropout, 0), (type("QuickDropout", (Dropout,), {}), 2)]
)
def test_recipes_find_it_under_the_name_of_torchs(
    kind: type, rounded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another name what goes into it would be rounded too, and nobody would say so."""
    from helpers import dropout, load_recipe

    monkeypatch.setattr(dropout, "Dropout", kind)
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1)), nn.Dropout(0.1))
    quicken_dropout(model)
    recipe = load_recipe("minilm-6layers_quant_per_channel")
    (int8,) = [m for m in recipe.manager().iter_modifiers() if hasattr(m, "scheme")]
    int8._scheme_overrides = {}
    int8.apply_structure(model, epoch=9.0)
    wrapped = [m for m in model.modules() if isinstance(m, torch.ao.quantization.QuantWrapper)]
    assert sum(isinstance(m.module, nn.Dropout) for m in wrapped) == rounded
    assert len(wrapped) == 1 + rounded


def test_a_share_is_set_in_every_dropout() -> None:
    model = nn.Sequential(nn.Dropout(0.2), nn.Sequential(Dropout(0.1)))
    set_dropout(model, 0.0)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.0, 0.0]


def test_a_model_without_dropout_is_refused() -> None:
    with pytest.raises(UserError, match="Linear has no dropout to set"):
        set_dropout(nn.Linear(2, 2), 0.1)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_no_share_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="--dropout is a share from 0 to below 1, not"):
        check_dropout(share)
