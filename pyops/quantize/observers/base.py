"""What an observer is: it sees the tensors of one edge, batch by batch, and gives their range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor


class Observer(Protocol):
    """Sees any number of tensors in memory that does not grow with them."""

    def update(self, x: Tensor) -> None:
        """Takes note of a float tensor with finite values; an empty one changes nothing."""

    def range(self) -> tuple[float, float]:
        """(low, high): the values that the codes are spread over; (0, 0) if it saw none."""


OBSERVERS: dict[str, type[Observer]] = {}
_Class = TypeVar("_Class", bound="type[Observer]")


def observer(name: str) -> Callable[[_Class], _Class]:
    """Puts the decorated class into the table, under the name that ``quantize`` takes."""

    def register(cls: _Class) -> _Class:
        OBSERVERS[name] = cls
        return cls

    return register


def bounds(x: Tensor) -> tuple[float, float]:
    """The smallest and the largest value.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    low, high = torch.aminmax(x.detach().to(torch.float32))
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise ValueError("holds NaN or Inf")
    return float(low), float(high)
