"""Masked weights are exactly zero in any training loop, and in what is made from its models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn

import pyops
from pyops.prune import CubicSchedule, Pruner

OPTIMIZERS = {
    "adam foreach": lambda p: torch.optim.Adam(p, 1e-2, weight_decay=1e-2, foreach=True),
    "adam fused": lambda p: torch.optim.Adam(p, 1e-2, weight_decay=1e-2, fused=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=1e-1, fused=True),
    "sgd foreach": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-2, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2, weight_decay=1e-2),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.5),
    "adamax": lambda p: torch.optim.Adamax(p, 1e-2),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-2),
    "radam": lambda p: torch.optim.RAdam(p, 1e-2),
    "asgd": lambda p: torch.optim.ASGD(p, 1e-2, t0=10),
    "rprop": lambda p: torch.optim.Rprop(p, 1e-2),
    "adafactor": lambda p: torch.optim.Adafactor(p, 1e-2),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=2, history_size=5),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Others would only wait: these layers are tiny, and the steps are many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 3))


def loss_of(model):
    x = torch.randn(16, 12)
    return (model(x) - x[:, :3].sin()).square().mean()


def zero_where_masked(model):
    """Whether some are masked, and all of these are 0."""
    layers = [layer for layer in model.modules() if hasattr(layer, "weight_mask")]
    for layer in layers:
        assert bool((layer.weight[~layer.weight_mask] == 0).all())
        assert bool((layer.weight[layer.weight_mask] != 0).all())
    return bool(layers) and any(not layer.weight_mask.all() for layer in layers)


def zero_everywhere(layers, states):
    """Of weights and, where they are given, of the optimizer's tensors."""
    for layer in layers:
        for value in (layer.weight, *states.get(layer.weight, {}).values()):
            if isinstance(value, torch.Tensor) and value.shape == layer.weight.shape:
                assert not bool(value.masked_fill(layer.weight_mask, 0).any())


@pytest.mark.parametrize(
    ("name", "with_optimizer"),
    [*((name, True) for name in OPTIMIZERS), ("sgd fused", False), ("lbfgs", False)],
)
def test_every_optimizer(name, with_optimizer):
    model = net()
    optimizer = OPTIMIZERS[name](model.parameters())
    schedule = CubicSchedule(20, 120, every=10)
    pruner = Pruner(model, 0.8, schedule=schedule, optimizer=optimizer if with_optimizer else None)
    layers, written = (model[0], model[2]), 0
    start = model[0].weight.detach().clone()
    for _ in range(200):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step(lambda at=loss: at)  # a closure is what LBFGS cannot do without
        if not with_optimizer:
            written += int(model[0].weight.detach()[~model[0].weight_mask].count_nonzero())
        pruner.step()
        zero_everywhere(layers, optimizer.state if with_optimizer else {})
    assert pruner.sparsity == pytest.approx(0.8, abs=2e-3)
    assert with_optimizer or written > 0  # else this would test nothing
    assert zero_where_masked(model)
    kept = model[0].weight_mask
    assert not bool((model[0].weight[kept] == start[kept]).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scaled_clipped_and_accumulated_gradients(dtype):
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    schedule = CubicSchedule(10, 100, every=10)
    pruner = Pruner(model, 0.8, schedule=schedule, optimizer=optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    before = scaler.get_scale()
    for step in range(200):
        for _ in range(3):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
                loss = loss_of(model) / 3
            if step == 150:
                loss = loss * float("inf")  # the scaler leaves this step out
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        for layer in (model[0], model[2]):
            assert bool((layer.weight.grad[~layer.weight_mask] == 0).all())
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        pruner.step()
        assert step < 30 or zero_where_masked(model)
    assert scaler.get_scale() == before / 2
    assert pruner.sparsity == pytest.approx(0.8, abs=2e-3)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averaged_models_have_the_masks_of_the_last_update(kind):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    pruner = Pruner(model, 0.8, schedule=CubicSchedule(10, 60, every=10), optimizer=optimizer)
    how = {"multi_avg_fn": get_ema_multi_avg_fn(0.99)} if kind == "ema" else {}
    averaged = AveragedModel(model, **how)
    rate = SWALR(optimizer, 0.02)
    for _ in range(200):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        pruner.step()
        averaged.update_parameters(model)
        rate.step()
    x = torch.randn(4, 12)
    plain = pyops.prune.unmask(averaged.module)
    assert torch.equal(plain(x), averaged(x))
    for i in (0, 2):
        mask = model[i].weight_mask
        assert torch.equal(averaged.module[i].weight_mask, mask)
        assert bool((plain[i].weight[~mask] == 0).all())
        assert bool((averaged.module[i].masked_weight()[~mask] == 0).all())
        assert not torch.equal(plain[i].weight, model[i].weight)
    sparse = pyops.sparsify(averaged.module.eval())
    assert torch.allclose(sparse(x), averaged(x), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_dtypes(dtype):
    model = net().to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    pruner = Pruner(model, 0.8, schedule=CubicSchedule(0, 10), optimizer=optimizer)
    for _ in range(15):
        optimizer.zero_grad()
        model(torch.randn(8, 12, dtype=dtype)).square().mean().backward()
        optimizer.step()
        pruner.step()
        for i in (0, 2):
            assert bool((model[i].weight[~model[i].weight_mask] == 0).all())
    assert pruner.sparsity == pytest.approx(0.8, abs=2e-3)
    assert model[0].weight.dtype == dtype


def test_frozen_weights_are_pruned_too():
    model = net().requires_grad_(False)
    model[2].requires_grad_(True)
    optimizer = torch.optim.SGD(model[2].parameters(), 0.1)
    pruner = Pruner(model, 0.5, schedule=CubicSchedule(0, 2), optimizer=optimizer)
    for _ in range(2):
        loss_of(model).backward()
        optimizer.step()
        pruner.step()
    assert pruner.sparsity == 0.5
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]


def test_a_compiled_model_sees_masks_that_change():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    pruner = Pruner(model, 0.8, schedule=CubicSchedule(0, 5), optimizer=optimizer)
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    x = torch.randn(16, 12)
    for _ in range(6):
        optimizer.zero_grad()
        compiled(x).square().mean().backward()
        optimizer.step()
        pruner.step()
        assert torch.equal(compiled(x), model(x))
    assert len(seen) == 1
    assert zero_where_masked(model)
    with pytest.raises(TypeError, match="is compiled already"):
        Pruner(compiled, 0.9, schedule=CubicSchedule(0, 5))


def test_inside_and_outside_of_inference_mode():
    model = net()
    with torch.inference_mode():
        pruner = Pruner(model, 0.5, schedule=CubicSchedule(0, 2))
        pruner.step()
    assert not model[0].weight_mask.is_inference()
    pruner.step()
    loss_of(model).backward()
    assert pruner.sparsity == 0.5


def test_copies_of_pruner_model_and_optimizer_together():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    pruner = Pruner(model, 0.8, schedule=CubicSchedule(0, 10), optimizer=optimizer)
    parts = (model, optimizer, pruner)
    both = [parts, copy.deepcopy(parts)]
    assert both[1][2].model is both[1][0]
    for m, o, p in both:
        torch.manual_seed(5)
        for _ in range(12):
            o.zero_grad()
            loss_of(m).backward()
            o.step()
            p.step()
        assert zero_where_masked(m)
    one, two = (m.state_dict() for m, _, _ in both)
    assert all(torch.equal(one[key], two[key]) for key in one)
