"""Pruner: the schedule, exact zeros under every optimizer, resuming."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

import pyops
from pyops.nn import MaskedConv2d, MaskedLinear
from pyops.prune import CubicSchedule, Pruner

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": lambda p: torch.optim.Adam(p, 1e-2, weight_decay=1e-2),
    "amsgrad": lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=1e-1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-2, momentum=0.9),
}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 24), nn.Tanh(), nn.Linear(24, 3)
    )


def train(model, optimizer, pruner, steps, look=lambda: None):
    for _ in range(steps):
        x = torch.randn(8, 2, 6, 6)
        loss = (model(x) - x.mean((2, 3)).sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.step()
        look()


def test_cubic_schedule():
    schedule = CubicSchedule(10, 110, every=20, initial=0.2)
    found = {t: round(schedule.sparsity(t, 0.9), 12) for t in (0, 9, 10, 60, 110, 500)}
    assert found == {0: 0, 9: 0, 10: 0.2, 60: 0.8125, 110: 0.9, 500: 0.9}
    assert [t for t in range(200) if schedule.due(t)] == [10, 30, 50, 70, 90, 110]
    assert [t for t in range(200) if CubicSchedule(3, 10, 4).due(t)] == [3, 7, 10]
    assert [schedule.done(t) for t in (0, 109, 110, 111)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("name", "with_optimizer"),
    [*((name, True) for name in OPTIMIZERS), ("sgd", False), ("adamw", False)],
)
def test_two_hundred_steps_keep_every_masked_weight_at_zero(name, with_optimizer):
    model = net()
    optimizer = OPTIMIZERS[name](model.parameters())
    schedule = CubicSchedule(20, 120, every=10)
    pruner = Pruner(model, 0.9, schedule=schedule, optimizer=optimizer if with_optimizer else None)
    layers = [layer for layer in model if hasattr(layer, "weight_mask")]
    assert [type(layer) for layer in layers] == [MaskedConv2d, MaskedLinear, MaskedLinear]
    previous = [layer.weight_mask.clone() for layer in layers]
    shares = []

    def look():
        shares.append(pruner.sparsity)
        for index, layer in enumerate(layers):
            gone = ~layer.weight_mask
            assert not bool((layer.weight_mask & ~previous[index]).any())
            assert bool((layer.weight.grad[~previous[index]] == 0).all())
            previous[index] = layer.weight_mask.clone()
            assert bool((layer.weight[gone] == 0).all())
            if with_optimizer:
                for value in optimizer.state[layer.weight].values():
                    if isinstance(value, torch.Tensor) and value.shape == gone.shape:
                        assert bool((value[gone] == 0).all())

    before = [layer.weight.detach().clone() for layer in layers]
    train(model, optimizer, pruner, 200, look)
    assert pruner.done
    assert shares == sorted(shares)
    assert shares[:19] == [0] * 19
    assert len(set(shares)) == 11  # 0 at 20 still, then one more behind each 10
    for layer, old in zip(layers, before, strict=True):
        total = layer.weight.numel()
        assert int((~layer.weight_mask).sum()) == round(0.9 * total)
        kept = layer.weight_mask
        assert int((layer.weight[kept] == 0).sum()) == 0
        assert not bool((layer.weight[kept] == old[kept]).any())


@pytest.mark.parametrize("pattern", ["2:8", "1:4x4", "block:4x2", "unstructured"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_last_masks_are_what_prune_makes_at_once(pattern, scope):
    """Without training in between, step by step comes to the same weights."""
    if scope == "global" and ":" in pattern[:2]:
        with pytest.raises(ValueError, match="scope='global'"):
            Pruner(net(), pattern=pattern, scope=scope, schedule=CubicSchedule(0, 9))
        return
    model = net()
    expected = pyops.prune(model, pattern=pattern, scope=scope)
    pruner = Pruner(model, pattern=pattern, scope=scope, schedule=CubicSchedule(0, 9))
    counts = [pruner.sparsity]
    for _ in range(9):
        changed = pruner.step()
        counts.append(pruner.sparsity)
        assert changed == (counts[-1] > counts[-2])
    assert not pruner.step()
    assert counts == sorted(counts)
    assert len(set(counts)) > 3
    for one, two in zip(model.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_without_the_optimizer_its_momentum_is_left_alone():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    pruner = Pruner(model, 0.5, schedule=CubicSchedule(2, 3))
    train(model, optimizer, pruner, 3)
    gone = ~model[3].weight_mask
    assert bool((optimizer.state[model[3].weight]["momentum_buffer"][gone] != 0).any())
    assert bool((model[3].weight[gone] == 0).all())


def test_parameters_stay_the_same_objects():
    model = net()
    before = list(model.parameters())
    Pruner(model, 0.5, schedule=CubicSchedule(0, 1))
    assert all(one is two for one, two in zip(model.parameters(), before, strict=True))
    reason = pyops.explain(model).rows[1].reason
    assert reason.startswith(
        "pruned: unstructured, l1, by layer; 0 % of its weights are 0, 3,072 of 3,072 left; sparse "
    )


def test_tied_weights_and_include():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    pruner = Pruner(model, 0.5, schedule=CubicSchedule(0, 1), include=["0", "1"])
    pruner.step()
    assert type(model[2]) is nn.Linear
    assert model[0].weight is model[1].weight
    assert torch.equal(model[0].weight_mask, model[1].weight_mask)
    assert pruner.sparsity == 0.5


def test_resuming_is_like_never_stopping():
    def made():
        model = net()
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        generator = torch.Generator().manual_seed(3)
        pruner = Pruner(
            model,
            0.8,
            criterion="random",
            schedule=CubicSchedule(2, 20, every=3),
            optimizer=optimizer,
            generator=generator,
        )
        return model, optimizer, pruner

    straight = made()
    torch.manual_seed(7)
    train(*straight, 9)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in straight], file)
    torch.manual_seed(8)
    train(*straight, 15)
    file.seek(0)
    resumed = made()
    states = torch.load(file)
    with pytest.raises(ValueError, match="load the model's state_dict first"):
        resumed[2].load_state_dict(states[2])
    assert resumed[2].steps == 0
    for part, state in zip(resumed, states, strict=True):
        part.load_state_dict(state)
    torch.manual_seed(8)
    train(*resumed, 15)
    one, two = straight[0].state_dict(), resumed[0].state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert resumed[2].steps == 24
    assert resumed[2].state_dict()["left"] == straight[2].state_dict()["left"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 0.7}, "sparsity is 0.7 in the state, but 0.5 here"),
        ({"pattern": "2:4"}, "pattern is '2:4' in the state, but 'unstructured' here"),
        ({"generator": 0}, "the state and this pruner differ in having a generator"),
        ({"steps": None}, "the state has no 'steps'"),
    ],
)
def test_another_state(change, message):
    pruner = Pruner(net(), 0.5, schedule=CubicSchedule(0, 9))
    state = {**pruner.state_dict(), **change}
    if change == {"steps": None}:
        del state["steps"]
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared)
        pruner.load_state_dict(state)
    assert str(error.value) == f"Pruner: {message}"


def test_nan_is_found_before_anything_changes():
    model = net()
    pruner = Pruner(model, 0.5, schedule=CubicSchedule(0, 9))
    pruner.step()
    with torch.no_grad():
        model[5].weight[tuple(model[5].weight_mask.nonzero()[0])] = float("inf")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"^Pruner: the weight of '5' holds NaN or Inf$"):
        pruner.step()
    assert pruner.steps == 1
    assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())


def test_nan_where_weights_are_gone_is_none():
    """What an optimizer wrote there (inf * 0 in a gradient) is set back to 0."""
    model = net()
    pruner = Pruner(model, 0.5, schedule=CubicSchedule(0, 9))
    pruner.step()
    layer = model[5]
    gone = ~layer.weight_mask
    assert gone.any()
    with torch.no_grad():
        layer.weight[gone] = float("nan")
    left = int(layer.weight_mask.sum())
    assert pruner.step()
    assert (layer.weight[gone] == 0).all()
    assert int(layer.weight_mask.sum()) < left
    assert not (layer.weight_mask & gone).any()


def test_a_schedule_of_the_callers():
    class Once:
        share = 0.5

        def due(self, step):
            return step == 2

        def sparsity(self, step, final):
            return self.share

        def done(self, step):
            return step >= 2

    model = net()
    pruner = Pruner(model, 0.9, schedule=Once())
    assert [pruner.step() for _ in range(3)] == [False, True, False]
    assert pruner.sparsity == 0.5
    pruner = Pruner(net(), 0.9, schedule=Once())
    Once.share = 1.0
    pruner.step()
    with pytest.raises(ValueError, match=r"the schedule says a sparsity of 1\.0 at step 2"):
        pruner.step()
