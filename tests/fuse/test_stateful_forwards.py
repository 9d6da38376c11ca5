"""Forwards that change buffers and attributes: workflows leave no trace of theirs."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyops
from pyops.prune import prune_channels
from pyops.quantize.copying import evaluating
from pyops.testing.cases.sparse_gemm import masked

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """``how`` its forward changes itself."""

    def __init__(self, how: str = "") -> None:
        super().__init__()
        self.how = how
        self.a, self.b = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 1)
        self.fc = nn.Linear(64, 5)
        self.register_buffer("n", torch.ones(()))
        self.log: list[Any] = []
        self.last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(torch.relu(self.a(x))).mean((2, 3))
        if self.how == "assigns":
            self.n += 1
        elif self.how == "in place":
            self.n.add_(1)
        elif self.how == "keeps":
            self.last = x
        elif self.how == "adds":
            self.last = (self.last or 0) + 1
        elif self.how == "appends":
            self.log.append(x)
        elif self.how == "draws":
            x = x + 0 * torch.rand_like(x)
        return self.fc(x) * self.n


CHANGES = {
    "assigns": "the buffer n",
    "in place": "the buffer n",
    "keeps": "the attribute last",
    "adds": "the attribute last",
    "appends": "the attribute log",
}


def make(how: str) -> Net:
    torch.manual_seed(0)
    model = Net(how)
    with torch.no_grad():
        model.b.weight.copy_(masked(model.b.weight.flatten(1), 0.1, 1, 1).view(64, 64, 1, 1))
    return model


def workflows() -> dict[str, Any]:
    return {
        "fuse": lambda m: pyops.fuse(m, example_inputs=X),
        "fuse without example": pyops.fuse,
        "sparsify": lambda m: pyops.sparsify(m, example_inputs=X),
        "sparsify int8": lambda m: pyops.sparsify(m, dtype="int8", example_inputs=X),
        "quantize": lambda m: pyops.quantize(m, calibration=[X, X]),
        "channels": lambda m: prune_channels(m, 0.5, example_inputs=X),
        "channels without example": lambda m: prune_channels(m, 0.5),
    }


@pytest.mark.parametrize("how", [*CHANGES, "draws"])
@pytest.mark.parametrize("workflow", workflows())
def test_models_are_as_they_were(workflow: str, how: str, tmp_path: Path) -> None:
    model = make(how).train()
    before = torch.get_rng_state()
    made = workflows()[workflow](model)
    assert torch.equal(torch.get_rng_state(), before)
    for one in (model, made):
        assert type(one.n) is Tensor
        assert (one.n, one.log, one.last) == (1, [], None)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in one.modules())
    assert all(module.training for module in model.modules())
    pyops.save(made, tmp_path / "model")
    copy.deepcopy(made)
    made.eval()(X)
    runs_itself = how in CHANGES
    if runs_itself:  # the result's forward does what the model's does
        assert made.n == 2 or len(made.log) == 1 or made.last is not None
        if workflow in ("fuse", "sparsify", "quantize"):
            (told,) = pyops.explain(made).graphs
            assert f"its forward changes {CHANGES[how]}" in told


def test_inplace() -> None:
    model = make("assigns")
    assert pyops.fuse(model, example_inputs=X, inplace=True) is model
    assert model.n == 1
    model(X)
    assert model.n == 2


def test_two_threads_and_one_switch() -> None:
    """The one that began first ends first; the other still runs without the fast path."""
    model, enabled = nn.Linear(1, 1), torch.backends.mha.get_fastpath_enabled
    inside, go_on = threading.Event(), threading.Event()

    def other() -> None:
        with evaluating(nn.Linear(1, 1)):
            inside.set()
            assert go_on.wait(60)

    assert enabled()
    thread = threading.Thread(target=other)
    with evaluating(model):
        thread.start()
        assert inside.wait(60)
    assert not enabled()
    go_on.set()
    thread.join()
    assert enabled()


def test_threads_on_one_model() -> None:
    model = make("").train()
    made: list[nn.Module] = []
    threads = [
        threading.Thread(target=lambda: made.append(pyops.sparsify(model, example_inputs=X)))
        for _ in range(3)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(made) == 3
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()
