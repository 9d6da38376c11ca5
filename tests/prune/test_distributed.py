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
from pyops.prune.criteria import CRITERIA

RANKS = 2


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))


@pytest.fixture(autouse=True)
def importable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New processes import this file by its name, from the paths that they inherit."""
    monkeypatch.syspath_prepend(str(root))


def all_on(rank: int, folder: str, work, cases) -> None:
    """Runs ``work(rank, case)`` for every case and leaves the results in the folder."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    torch.save({case: work(rank, case) for case in cases}, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def results(folder, work, cases):
    spawn(all_on, args=(str(folder), work, cases), nprocs=RANKS)
    ranks = [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]
    return {case: [found[case] for found in ranks] for case in cases}


def same(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def train(rank: int, case):
    criterion, wrap_first = case
    model = net()
    wrapped = DistributedDataParallel(model) if wrap_first else None
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
    wrapped = wrapped or DistributedDataParallel(model)
    torch.manual_seed(100 + rank)
    for _ in range(10):
        x = torch.randn(8, 16)
        optimizer.zero_grad()
        wrapped(x).square().mean().backward()
        optimizer.step()
        pruner.step()
    return model.state_dict(), x, pruner.sparsity


def data_of(criterion, batches):
    if not CRITERIA[criterion].data:
        return {}
    loss = {"loss": lambda m, x: m(x).square().sum()} if criterion == "gradient" else {}
    return {"calibration": batches, **loss}


def prune(rank: int, criterion: str):
    """Each has its own batches, the first one more, and its own random numbers."""
    torch.manual_seed(100 + rank)
    batches = [torch.randn(8, 16) * torch.rand(16) for _ in range(3 - rank)]
    new = pyops.prune(net(), 0.6, criterion=criterion, **data_of(criterion, batches))
    torch.manual_seed(100 + rank)
    half = pyops.prune(Half(rank), 0.6, criterion=criterion, **data_of(criterion, batches))
    again = pyops.prune(new, 0.8, criterion=criterion, **data_of(criterion, batches))
    return new.state_dict(), batches, half.state_dict(), again.state_dict()


class Half(nn.Module):
    """Calls another layer on each process."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.layers, self.rank = net(), rank

    def forward(self, x):
        return self.layers[0](x) if self.rank else self.layers[2](x.repeat(1, 2)[:, :24])


def test_training(tmp_path):
    cases = [("l1", False), ("l1", True), ("random", False)]
    for case, ((one, x, share), (two, y, other)) in results(tmp_path, train, cases).items():
        assert not torch.equal(x, y)
        assert same(one, two), case
        assert share == other == pytest.approx(0.8, abs=0.002)
        for layer in ("0", "2"):
            assert bool((one[f"{layer}.weight"][~one[f"{layer}.weight_mask"]] == 0).all())


def test_calibration_is_that_of_all(tmp_path):
    for criterion, found in results(tmp_path, prune, sorted(CRITERIA)).items():
        (one, first, half, again), (two, second, other, same_again) = found
        assert not torch.equal(first[0], second[0])
        assert same(one, two), criterion
        assert same(half, other), criterion
        assert same(again, same_again), criterion
        for layer, count in (("0", 384), ("2", 96)):
            mask = again[f"{layer}.weight_mask"]
            assert not bool((mask & ~one[f"{layer}.weight_mask"]).any())
            goes = round(0.8 * count)
            if criterion == "wanda":
                goes = len(mask) * round(0.8 * mask.shape[1])
            assert int((~mask).sum()) == goes
        assert {"layers.0.weight_mask", "layers.2.weight_mask"} <= half.keys()
        if criterion == "random":
            continue
        data = data_of(criterion, first + second)
        alone = pyops.prune(net(), 0.6, criterion=criterion, **data).state_dict()
        for layer in ("0", "2"):
            assert torch.equal(alone[f"{layer}.weight_mask"], one[f"{layer}.weight_mask"])
            assert torch.allclose(alone[f"{layer}.weight"], one[f"{layer}.weight"], atol=1e-4)
