"""How sparse a model is at each step of its training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """When masks change, and to what.

    ``Pruner.state_dict`` holds its class and those of its attributes that are plain values.
    """

    def due(self, step: int) -> bool:
        """Whether masks change behind this optimizer step; the first one is number 1."""

    def sparsity(self, step: int, final: float) -> float:
        """The share of removed weights behind that step: never falling, at most ``final``."""

    def done(self, step: int) -> bool:
        """Whether masks change no more."""


@dataclass(frozen=True)
class CubicSchedule:
    """From ``initial`` to the final sparsity s between two steps (Zhu and Gupta 2017,
    arXiv:1710.01878): ``s + (initial - s) * (1 - (step - begin) / (end - begin))^3``.

    Masks change behind steps ``begin``, ``begin + every`` ... and behind ``end``. Steps are those
    of the optimizer, counted from 1; sparsities are shares of all weights, 0 to 1. ``initial`` is
    at most the final one.

    Raises:
        TypeError: a number of another type.
        ValueError: not ``0 <= begin < end``, ``every >= 1`` and ``0 <= initial < 1``.
    """

    begin: int
    end: int
    every: int = 1
    initial: float = 0.0

    def __post_init__(self) -> None:
        for name in ("begin", "end", "every"):
            value = getattr(self, name)
            if type(value) is not int:
                raise TypeError(
                    f"CubicSchedule: {name} is a {type(value).__name__}, expected an int"
                )
        if type(self.initial) not in (int, float):
            given = type(self.initial).__name__
            raise TypeError(f"CubicSchedule: initial is a {given}, expected a float")
        if not 0 <= self.begin < self.end:
            raise ValueError(
                f"CubicSchedule: begin is {self.begin} and end is {self.end}, expected "
                "0 <= begin < end"
            )
        if self.every < 1:
            raise ValueError(f"CubicSchedule: every is {self.every}, expected at least 1")
        if not 0 <= self.initial < 1:
            raise ValueError(
                f"CubicSchedule: initial is {self.initial}, expected at least 0 and below 1"
            )
        object.__setattr__(self, "initial", float(self.initial))

    def due(self, step: int) -> bool:
        """See ``Schedule``."""
        inside = self.begin <= step <= self.end
        return inside and ((step - self.begin) % self.every == 0 or step == self.end)

    def sparsity(self, step: int, final: float) -> float:
        """See ``Schedule``."""
        if step < self.begin:
            return 0.0
        rest = max(0.0, 1 - (step - self.begin) / (self.end - self.begin))
        return final + (self.initial - final) * rest**3

    def done(self, step: int) -> bool:
        """See ``Schedule``."""
        return step >= self.end
