"""Two processes with different data: one mask, one model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

import pyops
from pyops.prune import CubicSchedule, Pruner

RANKS = 2


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))


def start(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)


def finish(rank: int, folder: str, result: object) -> None:
    torch.save(result, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def train(rank: int, folder: str, criterion: str, wrap_first: bool) -> None:
    start(rank, folder)
    model = net()
    if wrap_first:
        wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(rank) if criterion == "random" else None
    pruner = Pruner(
        model,
        0.8,
        criterion=criterion,
        schedule=CubicSchedule(1, 8),
        optimizer=optimizer,
        generator=generator,
    )
    if not wrap_first:
        wrapped = DistributedDataParallel(model)
    torch.manual_seed(100 + rank)
    for _ in range(10):
        x = torch.randn(8, 16)
        optimizer.zero_grad()
        wrapped(x).square().mean().backward()
        optimizer.step()
        pruner.step()
    finish(rank, folder, (model.state_dict(), x, pruner.sparsity))


def prune(rank: int, folder: str, criterion: str) -> None:
    """Each has its own batches; the first has one more, and its own random numbers."""
    start(rank, folder)
    torch.manual_seed(100 + rank)
    batches = [torch.randn(8, 16) * torch.rand(16) for _ in range(3 - rank)]
    data = {"calibration": batches}
    if criterion == "gradient":
        data["loss"] = lambda m, x: m(x).square().sum()
    if criterion == "random":
        data = {}
    new = pyops.prune(net(), 0.6, criterion=criterion, **data)
    finish(rank, folder, (new.state_dict(), batches, None))


def results(function, folder, *arguments):
    spawn(function, args=(str(folder), *arguments), nprocs=RANKS)
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(RANKS)]


def same(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("criterion", "wrap_first"), [("l1", False), ("l1", True), ("random", False)]
)
def test_training(tmp_path, criterion, wrap_first):
    (one, x, share), (two, y, other) = results(train, tmp_path, criterion, wrap_first)
    assert not torch.equal(x, y)
    assert same(one, two)
    assert share == other == pytest.approx(0.8, abs=0.002)
    for layer in ("0", "2"):
        assert bool((one[f"{layer}.weight"][~one[f"{layer}.weight_mask"]] == 0).all())


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt", "gradient", "random"])
def test_calibration_is_that_of_all(tmp_path, criterion):
    (one, first, _), (two, second, _) = results(prune, tmp_path, criterion)
    assert same(one, two)
    if criterion == "random":
        return
    data = {"calibration": first + second}
    if criterion == "gradient":
        data["loss"] = lambda m, x: m(x).square().sum()
    alone = pyops.prune(net(), 0.6, criterion=criterion, **data).state_dict()
    for layer in ("0", "2"):
        assert torch.equal(alone[f"{layer}.weight_mask"], one[f"{layer}.weight_mask"])
        assert torch.allclose(alone[f"{layer}.weight"], one[f"{layer}.weight"], atol=1e-4)
