"""pyops.prune: what it makes of a model, ties, records, files."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import pyops
from pyops.nn import MaskedConv1d, MaskedConv2d, MaskedLinear


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 3, groups=16)
        self.line = nn.Conv1d(6, 8, 3)
        self.fc = nn.Linear(8 * 34, 10)

    def forward(self, x):
        x = self.depth(self.norm(self.conv(x)).relu())  # [N, 16, 6, 6]
        return self.fc(self.line(x.flatten(2)[:, :6]).flatten(1))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_a_copy_that_can_be_trained():
    model = net()
    model.norm.eval()
    model.conv.bias.requires_grad_(False)
    before = values(model)
    new = pyops.prune(model, 0.8)
    assert type(new) is Net
    kinds = {"conv": MaskedConv2d, "depth": nn.Conv2d, "line": MaskedConv1d, "fc": MaskedLinear}
    assert {name: type(getattr(new, name)) for name in kinds} == kinds
    assert (new.training, new.norm.training) == (True, False)
    assert not new.conv.bias.requires_grad
    assert new.fc.weight.requires_grad
    for name in ("conv", "line", "fc"):
        layer = getattr(new, name)
        total = layer.weight.numel()
        assert int(layer.weight_mask.sum()) == total - round(0.8 * total)
        assert bool((layer.weight[~layer.weight_mask] == 0).all())
        kept = layer.weight[layer.weight_mask]
        assert torch.equal(kept, getattr(model, name).weight[layer.weight_mask])
    new(torch.randn(2, 3, 8, 8)).sum().backward()
    torch.optim.SGD(new.parameters(), 0.1, weight_decay=0.1).step()
    assert same(values(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_inplace_keeps_the_parameters():
    model = net()
    weight = model.fc.weight
    assert pyops.prune(model, 0.5, inplace=True) is model
    assert model.fc.weight is weight
    assert float((weight == 0).double().mean()) == 0.5


def test_a_layer_by_itself():
    layer = nn.Linear(10, 10)
    new = pyops.prune(layer, 0.5)
    assert type(new) is MaskedLinear
    assert type(pyops.prune.unmask(new)) is nn.Linear
    with pytest.raises(ValueError, match="inplace=True cannot turn the Linear itself"):
        pyops.prune(layer, 0.5, inplace=True)


def test_retain_and_defaults():
    model = nn.Sequential(nn.Linear(20, 10))
    masks = [pyops.prune(model, **how)[0].weight_mask for how in ({}, {"retain": 0.1})]
    assert torch.equal(*masks)
    assert int(masks[0].sum()) == 20
    assert pyops.prune(model, pattern="1:4")[0].sparsity == 0.75
    assert pyops.prune(model, 0.5, pattern="2:4")[0].sparsity == 0.5
    assert pyops.prune(model, retain=1 / 3, pattern="1:3")[0].sparsity == pytest.approx(0.65)


def test_global_scope_has_one_threshold():
    model = net()
    new = pyops.prune(model, 0.7, scope="global", include=["conv", "fc"])
    weights = [model.conv.weight.flatten(), model.fc.weight.flatten()]
    ordered = torch.cat(weights).abs().sort().values
    threshold = ordered[round(0.7 * len(ordered)) - 1]
    for name in ("conv", "fc"):
        expected = getattr(model, name).weight.abs() > threshold
        assert torch.equal(getattr(new, name).weight_mask, expected)
    assert new.conv.sparsity != new.fc.sparsity


def test_global_scope_empties_no_layer():
    model = nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 4))
    with torch.no_grad():
        model[1].weight.mul_(1e-6)
    new = pyops.prune(model, 0.9, scope="global")
    best = model[1].weight.abs().flatten().argmax()
    assert new[1].weight_mask.flatten().nonzero().tolist() == [[int(best)]]
    assert sum(int((~layer.weight_mask).sum()) for layer in new) == round(0.9 * 1020)


def test_tied_weights_have_one_mask_and_stay_tied():
    model = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.Linear(12, 12))
    model[2].weight = model[0].weight
    for criterion, data in (("l1", {}), ("wanda", {"calibration": [torch.randn(9, 12)]})):
        new = pyops.prune(model, 0.5, criterion=criterion, **data)
        assert new[0].weight is new[2].weight
        assert torch.equal(new[0].weight_mask, new[2].weight_mask)
        assert new[0].sparsity == new[3].sparsity == 0.5
        plain = pyops.prune.unmask(new)
        assert plain[0].weight is plain[2].weight
        assert torch.equal(plain[0].weight, new[0].weight)
    rows = pyops.explain(new).rows
    assert rows[1].reason.endswith("; shares the weight of 0")


def test_a_weight_tied_to_a_dense_one_stays_dense():
    model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20), nn.Linear(20, 20))
    model[1].weight = model[0].weight
    new = pyops.prune(model, 0.5)
    assert type(new[1]) is nn.Linear
    assert new[1].weight is new[0].weight
    reason = pyops.explain(new).rows[0].reason
    assert reason == "weight is tied to 0.weight, which stays dense"


def test_a_shared_layer_is_masked_at_every_name():
    layer = nn.Linear(12, 12)
    new = pyops.prune(nn.Sequential(layer, nn.ReLU(), layer), 0.5)
    assert new[0] is new[2]
    assert type(new[0]) is MaskedLinear


def test_the_criterion_sees_all_calls_of_tied_layers():
    """Only with both layers' inputs has the third input the larger norm."""
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        first.weight.fill_(1)
    second.weight = first.weight

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = first, second

        def forward(self, x, y):
            return self.a(x), self.b(y)

    x, y = torch.tensor([[3.0, 2, 0]]), torch.tensor([[0.0, 3, 4]])
    new = pyops.prune(Pair(), 2 / 3, criterion="wanda", calibration=[(x, y)])
    assert new.a.weight_mask.tolist() == [[False, False, True]] * 3


@pytest.mark.parametrize(
    ("keywords", "masked"),
    [
        ({}, {"conv", "line", "fc"}),
        ({"include": "fc"}, {"fc"}),
        ({"include": nn.Conv2d}, {"conv", "depth"}),
        ({"exclude": ["fc", nn.Conv1d]}, {"conv"}),
        ({"include": "*", "exclude": "depth"}, {"conv", "line", "fc"}),
    ],
)
def test_include_and_exclude(keywords, masked):
    new = pyops.prune(net(), 0.5, **keywords)
    rows = {row.name: row for row in pyops.explain(new).rows}
    assert set(rows) == {"conv", "depth", "line", "fc"}
    assert {name for name, row in rows.items() if row.after.startswith("Masked")} == masked
    for name in set(rows) - masked:
        assert rows[name].reason in (
            "excluded (exclude=)",
            "not chosen by include=",
            "depthwise: 144 weights in all, little to gain from zeros (include= prunes it)",
        )


class Own(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def test_layers_that_stay_dense():
    hooked, bad, small = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(1, 1)
    hooked.register_forward_hook(lambda *_: None)
    with torch.no_grad():
        bad.weight[1, 2] = float("nan")
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    model = nn.Sequential(nn.Linear(8, 8), hooked, bad, small, Own(8, 8), normed)
    attention = nn.MultiheadAttention(8, 2)
    model.append(attention)
    report = pyops.explain(pyops.prune(model, 0.5))
    reasons = {row.name: row.reason for row in report.rows}
    assert reasons == {
        "0": "pruned: unstructured, l1, by layer; 50 % of its weights are 0, 32 of 64 left; "
        "sparse kernels never pay",
        "1": "has hooks, which a replacement would lose",
        "2": "weight holds NaN or Inf",
        "3": "too small: 1 x 1 weights, and of 0.5 of the units of 'unstructured' none would go",
        "4": "Own is a subclass of Linear with its own forward (exact types only)",
        "5": "has a parametrization",
        "6": "nn.MultiheadAttention reads its weights and calls no layer",
        "6.out_proj": "nn.MultiheadAttention reads its weights and calls no layer",
    }
    assert "1 of 8 layers masked; bytes in these layers" in str(report)
    assert json.loads(report.to_json())["rows"][0]["after"] == "MaskedLinear"
    first = report.rows[0]
    assert (first.before, first.bytes_before, first.bytes_after) == ("Linear", 288, 352)


def test_pruning_further():
    model = nn.Sequential(nn.Linear(20, 20))
    once = pyops.prune(model, 0.5)
    with torch.no_grad():
        once[0].weight.neg_()
    twice = pyops.prune(once, 0.75)
    assert once[0].sparsity == 0.5
    assert twice[0].sparsity == 0.75
    assert not bool((twice[0].weight_mask & ~once[0].weight_mask).any())
    assert pyops.explain(twice).rows[0].before == "Linear"
    for options in ({}, {"scope": "global"}):
        with pytest.raises(ValueError, match="what is gone cannot come back"):
            pyops.prune(twice, 0.5, **options)


def test_fast_paths_of_torch_use_the_zeros():
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    new = pyops.prune(model, 0.5)
    assert type(new.linear1) is MaskedLinear
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        fast = new(x)
    assert torch.allclose(fast, new(x), atol=1e-5)


def test_in_inference_mode():
    with torch.inference_mode():
        new = pyops.prune(net(), 0.5, criterion="wanda", calibration=[torch.randn(1, 3, 8, 8)])
    assert new.fc.sparsity == 0.5


def test_progress_on_stderr(capsys):
    x = torch.randn(4, 3, 8, 8)
    pyops.prune(net(), 0.5, criterion="wanda", calibration=[x], progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "calibrating" in shown.err
    assert "pruning" in shown.err
