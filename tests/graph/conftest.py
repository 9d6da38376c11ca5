"""Models with three layers, converted twice: fused and not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import pyops

WIDTH, HIDDEN = 64, 96


class Layers(nn.Module):
    """What the models of these tests are made of; they differ in ``forward`` and ``more``."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.up = nn.Linear(WIDTH, HIDDEN)
        self.down = nn.Linear(HIDDEN, WIDTH)
        self.same = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH)
        self.more()

    def mlp(self, x):
        return self.down(F.relu(self.up(x)))

    def more(self):
        pass


class Calls(TorchDispatchMode):
    """The int8 ops that ran."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if str(func).startswith("pyops."):
            self.names.append(str(func).split(".")[1])
        return func(*args, **(kwargs or {}))


def convert(model: nn.Module, fuse: bool = True) -> nn.Module:
    return pyops.quantize(copy.deepcopy(model).eval(), include=nn.Linear, fuse=fuse)


def model_of(forward: Callable[..., Any], **parts: Any) -> nn.Module:
    """Layers with this forward; ``parts``: functions that make further attributes."""

    def more(self):
        for name, make in parts.items():
            setattr(self, name, make())

    return type("Model", (Layers,), {"forward": forward, "more": more})()


def outcome(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What a call returns, or the type of what it raises; it sees copies and the same seed."""
    torch.manual_seed(7)
    try:
        return model(*(a.clone() if type(a) is Tensor and a.is_leaf else a for a in args), **kwargs)
    except Exception as error:
        return type(error)


def same(a: Any, b: Any, tolerance: float = 0.0) -> bool:
    """Equal in type and structure, and in values up to ``tolerance`` of the largest."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        bound = tolerance * b.detach().abs().max().item() if b.numel() else 0.0
        return torch.allclose(a, b, rtol=0.0, atol=bound, equal_nan=True)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k], tolerance) for k in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    return a == b


@contextmanager
def count() -> Iterator[list[str]]:
    with Calls() as calls:
        yield calls.names


class Tools:
    """The functions above, for tests that pytest imports by path."""

    Layers, width, hidden = Layers, WIDTH, HIDDEN
    convert, model_of, outcome, same, count = map(
        staticmethod, (convert, model_of, outcome, same, count)
    )

    @staticmethod
    def notes(model: nn.Module) -> dict[str, list[str]]:
        return pyops.graph.fusions_of(model).notes

    @staticmethod
    def reasons(model: nn.Module) -> set[str]:
        return set(pyops.graph.fusions_of(model).reasons.values())


@pytest.fixture
def tools() -> type[Tools]:
    return Tools


@pytest.fixture
def x() -> Tensor:
    return torch.linspace(-2, 2, 6 * WIDTH).reshape(6, WIDTH).mul(7).sin()
