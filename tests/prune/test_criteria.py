"""Scores of every criterion against their formulas, written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pyops
from pyops.prune.criteria import CRITERIA, Work, criterion_of
from pyops.prune.criteria.sparsegpt import DAMPING
from pyops.prune.inputs import columns_of
from pyops.prune.matrix import matrix_of
from pyops.testing.compare import sqnr_db

CONVS = {
    "conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2), (5, 4, 9, 11)),
    "grouped": (nn.Conv2d(6, 4, (3, 2), padding="same", groups=2), (3, 6, 5, 7)),
    "circular": (nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="circular"), (3, 3, 6, 7)),
    "conv1d": (nn.Conv1d(4, 5, 4, padding="same"), (3, 4, 10)),
    "grouped conv1d": (nn.Conv1d(6, 9, 3, stride=2, groups=3), (2, 6, 11)),
    "no batch": (nn.Conv2d(3, 4, 3), (3, 6, 7)),
    "linear": (nn.Linear(7, 3), (2, 5, 7)),
}


def same_as(pruned, kept):
    mask = matrix_of(pruned.weight_mask)
    assert torch.equal(mask, kept)


@pytest.mark.parametrize("name", CONVS)
def test_columns_times_weight_is_the_layer(name):
    layer, shape = CONVS[name]
    layer, x = copy.deepcopy(layer).double(), torch.randn(shape, dtype=torch.float64)
    columns = torch.cat(list(columns_of(layer, x)), 2)
    groups = getattr(layer, "groups", 1)
    rows = matrix_of(layer.weight).view(groups, -1, columns.shape[1])
    y = (rows @ columns).flatten(0, 1) + layer.bias[:, None]  # [OC, L]
    out = layer(x)
    if isinstance(layer, nn.Linear):
        expected = out.flatten(0, -2).T
    else:
        batched = out if x.dim() == len(layer.kernel_size) + 2 else out[None]
        expected = batched.transpose(0, 1).flatten(1)
    assert y.shape == expected.shape
    assert torch.allclose(y, expected, rtol=0, atol=1e-12)


def test_columns_in_parts(monkeypatch):
    layer, shape = CONVS["conv2d"]
    x = torch.randn(shape)
    whole = torch.cat(list(columns_of(layer, x)), 2)
    monkeypatch.setattr("pyops.prune.inputs.CHUNK", 1)
    parts = list(columns_of(layer, x))
    assert len(parts) == 5
    assert torch.equal(torch.cat(parts, 2), whole)


def test_l1_and_l2_order_single_weights_alike():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30))
    with torch.no_grad():
        model[0].weight.mul_(1e-30)  # their float32 squares are all 0
    one, two = (pyops.prune(model, 0.7, criterion=name)[0] for name in ("l1", "l2"))
    assert torch.equal(one.weight_mask, two.weight_mask)
    threshold = model[0].weight.abs().flatten().sort().values[839]
    assert torch.equal(one.weight_mask, model[0].weight.abs() > threshold)


def test_l1_and_l2_differ_for_blocks():
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0, 0.0, 1.5]]))
    left = {
        name: pyops.prune(model, 0.5, pattern="block:1x2", criterion=name)[0].weight_mask.tolist()
        for name in ("l1", "l2")
    }
    assert left == {"l1": [[True, True, False, False]], "l2": [[False, False, True, True]]}


def test_random_is_seeded():
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20))

    def masks(seed):
        generator = torch.Generator().manual_seed(seed)
        new = pyops.prune(model, 0.5, criterion="random", generator=generator)
        return torch.cat([layer.weight_mask.flatten() for layer in new])

    assert torch.equal(masks(0), masks(0))
    assert not torch.equal(masks(0), masks(1))
    assert 0.3 < float((masks(0) == masks(1)).double().mean()) < 0.7


@pytest.mark.parametrize("name", CONVS)
def test_wanda(name):
    """|w_ij| ||x_j||_2 over all values that w_ij is multiplied by, in each output by itself."""
    torch.manual_seed(1)
    layer, shape = CONVS[name]
    batches = [torch.randn(shape) * torch.randn(shape).exp() for _ in range(3)]
    new = pyops.prune(nn.Sequential(layer), 0.6, criterion="wanda", calibration=batches)[0]
    norms = sum(
        torch.cat(list(columns_of(layer, x)), 2).double().square().sum(2) for x in batches
    ).sqrt()
    weight = matrix_of(layer.weight.detach()).abs()
    rows = len(weight) // len(norms)
    k = weight.shape[1]
    expected = torch.ones_like(weight, dtype=torch.bool)
    for i in range(len(weight)):
        order = (weight[i] * norms[i // rows]).sort().indices
        expected[i, order[: min(round(0.6 * k), k - 1)]] = False
    same_as(new, expected)
    gone = ~expected
    assert torch.equal(matrix_of(new.weight)[~gone], matrix_of(layer.weight)[~gone])


def test_gradient_is_that_of_the_summed_loss():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(9, 12), nn.Tanh(), nn.Dropout(0.5), nn.Linear(12, 4))
    model[0].weight.requires_grad_(False)
    batches = [(torch.randn(6, 9), torch.randint(0, 4, (6,))) for _ in range(3)]
    new = pyops.prune(
        model,
        0.5,
        criterion="gradient",
        calibration=iter(batches),
        loss=lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]),
        scope="global",
    )
    assert not model[0].weight.requires_grad
    assert not new[0].weight.requires_grad
    assert new[3].weight.requires_grad
    assert all(p.grad is None for m in (model, new) for p in m.parameters())
    assert new.training
    twin = copy.deepcopy(model).eval()
    twin[0].weight.requires_grad_(True)
    sum(F.cross_entropy(twin(x), y) for x, y in batches).backward()
    scores = [(twin[i].weight * twin[i].weight.grad).abs() for i in (0, 3)]
    threshold = torch.cat([one.flatten() for one in scores]).sort().values[77]  # of 156
    for i, one in zip((0, 3), scores, strict=True):
        assert torch.equal(new[i].weight_mask, one > threshold)


def test_small_gradients_still_order_small_weights():
    """Their float32 products are all 0."""
    weight = torch.arange(1.0, 9).view(2, 4)
    work = Work("x", weight * 1e-25, seen=torch.full((2, 4), 1e-25))
    order = criterion_of("gradient").scores(work).flatten().argsort()
    assert order.tolist() == list(range(8))


def naive_obs(weight, gram, keep_of):
    """Column by column, with the inverse of what is left of H computed anew each time."""
    w, k = weight.clone(), weight.shape[1]
    h = gram + DAMPING * gram.diagonal().mean() * torch.eye(k, dtype=gram.dtype)
    mask = torch.ones_like(w, dtype=torch.bool)
    for j in range(k):
        inverse = torch.linalg.inv(h[j:, j:])
        keep = keep_of(w, h, mask, j)
        mask[:, j] = keep
        error = w[:, j].masked_fill(keep, 0) / inverse[0, 0]
        w[:, j:] -= torch.outer(error, inverse[0])
        w[:, j].masked_fill_(~keep, 0)
    return mask, w


@pytest.mark.parametrize("name", ["2:4", "unstructured"])
def test_sparsegpt_against_the_naive_algorithm(name):
    torch.manual_seed(3)
    weight = torch.randn(6, 16, dtype=torch.float64)
    x = torch.randn(16, 40, dtype=torch.float64) * torch.rand(16, 1, dtype=torch.float64)
    work = Work("x", weight, seen=(x @ x.T)[None])
    pattern = pyops.prune.patterns.pattern_of(name)
    ((mask, new),) = criterion_of("sparsegpt").choose([work], pattern, 0.5)

    def scores(w, h, j, stop):
        diagonal = [torch.linalg.inv(h[i:, i:])[0, 0] for i in range(j, stop)]
        return w[:, j:stop].square() / torch.stack(diagonal)

    chosen = {}

    def keep_of(w, h, mask, j):
        if name == "2:4":
            if j % 4 == 0:
                chosen[0] = scores(w, h, j, j + 4).argsort(1).argsort(1) >= 2
            return chosen[0][:, j % 4]
        if j == 0:  # all columns are in one block of 128
            flat = scores(w, h, 0, 16)
            chosen[0] = flat > flat.flatten().sort().values[47]
        return chosen[0][:, j]

    expected_mask, expected = naive_obs(weight, work.seen[0], keep_of)
    assert torch.equal(mask, expected_mask)
    assert torch.allclose(new, expected, rtol=1e-9, atol=1e-9)
    assert float(new[~mask].abs().max()) == 0


@pytest.mark.parametrize("name", ["unstructured", "2:4", "1:4x4", "block:4x2"])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_sparsegpt_beats_magnitude_on_its_layer(kind, name):
    torch.manual_seed(4)
    if kind == "linear":
        mix = torch.randn(160, 160) / 8
        batches = [torch.randn(200, 160) @ mix for _ in range(3)]
        model = nn.Sequential(nn.Linear(160, 48))
    else:
        batches = [F.avg_pool2d(torch.randn(4, 24, 14, 14), 3, 1) for _ in range(3)]
        model = nn.Sequential(nn.Conv2d(24, 32, 3, groups=2, padding=1))
    sparsity = None if "4" in name[:4] else 0.6
    db = {}
    for criterion in ("l1", "wanda", "sparsegpt"):
        data = {} if criterion == "l1" else {"calibration": batches}
        new = pyops.prune(model, sparsity, pattern=name, criterion=criterion, **data)
        same = {"unstructured", "block:4x2"} & {name}
        units = new[0].weight.numel() // (8 if name == "block:4x2" else 1)
        if same and criterion != "wanda":
            gone = int((~new[0].weight_mask).sum()) // (new[0].weight.numel() // units)
            assert gone == round(0.6 * units)
        assert float(new[0].weight[~new[0].weight_mask].abs().max()) == 0
        db[criterion] = sqnr_db(new(batches[0]), model(batches[0]))
    assert db["sparsegpt"] > db["wanda"] + 0.5
    assert db["sparsegpt"] > db["l1"] + 0.5


def test_sparsegpt_with_inputs_that_are_always_zero():
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(12, 5))
    x = torch.randn(30, 12)
    x[:, 3] = 0
    new = pyops.prune(model, 0.5, criterion="sparsegpt", calibration=[x])[0]
    assert bool(torch.isfinite(new.weight).all())
    assert float(new.weight[:, 3].abs().max()) == 0


def test_bf16_weights_stay_bf16():
    x = torch.randn(30, 12, dtype=torch.bfloat16)
    model = nn.Sequential(nn.Linear(12, 5)).bfloat16()
    for name in ("l1", "wanda", "sparsegpt"):
        data = {} if name == "l1" else {"calibration": [x]}
        new = pyops.prune(model, 0.5, criterion=name, **data)
        assert new[0].weight.dtype == new(x).dtype == torch.bfloat16
        assert new[0].sparsity == 0.5


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_every_criterion_of_the_table_prunes_a_model(name):
    model, x = nn.Sequential(nn.Linear(16, 10)), torch.randn(20, 16)
    data = {"calibration": [x]} if CRITERIA[name].data else {}
    if CRITERIA[name].data == "loss":
        data["loss"] = lambda m, batch: m(batch).square().sum()
    new = pyops.prune(model, 0.5, criterion=name, **data)
    assert new[0].sparsity == 0.5
