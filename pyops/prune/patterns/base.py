"""What a pattern is, and the table of them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..matrix import unit_counts, unit_sizes, unit_sums


class Scored(NamedTuple):
    """One weight ``[OC, K]``: ``scores``, the larger the better, and what is ``left`` of it (bool;
    None: all)."""

    scores: Tensor
    left: Tensor | None = None

    def units(self, rows: int, cols: int) -> Tensor:
        """The mean score of each unit, what is gone counting 0; -inf where nothing is left."""
        if self.left is None:
            scores, gone = self.scores, None
        else:
            scores = self.scores.masked_fill(~self.left, 0)
            gone = unit_sums(self.left.to(scores.dtype), rows, cols) == 0
        means = unit_sums(scores, rows, cols)
        if rows * cols > 1:
            means = means / unit_sums(scores.new_ones(scores.shape), rows, cols)
        return means if gone is None else means.masked_fill(gone, float("-inf"))


class Pattern(ABC):
    """``rows`` by ``cols`` weights are kept or removed together: a unit.

    ``sparsity``: the share of removed weights, where the pattern itself says it. ``span``: columns
    within which it chooses.
    """

    rows: int = 1
    cols: int = 1
    sparsity: float | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def span(self) -> int:
        return self.cols

    @classmethod
    @abstractmethod
    def parse(cls, name: str, found: re.Match[str]) -> Pattern:
        """The pattern of that name, which the table's expression found.

        Raises:
            ValueError: numbers that make no sense, with what was expected.
        """

    @abstractmethod
    def masks(self, weights: Sequence[Scored], sparsity: float) -> list[Tensor]:
        """bool ``[OC, K]`` for each weight, True where it stays; what was gone stays gone.

        Several weights share one threshold, the mean score of a unit. Each keeps at least one unit
        that was left. Among equal scores those of lower index (first weight, first row, first
        column) go first.
        """

    @abstractmethod
    def masks_by_row(self, weight: Scored, sparsity: float) -> Tensor:
        """The same for one weight, with the same number of removed units in each row of units.

        Where some rows lack more than that already, the others lose less.
        """

    @abstractmethod
    def removes(self, shapes: Sequence[torch.Size], sparsity: float, by_row: bool) -> int:
        """How many units go of weights of these shapes, which share one threshold."""

    def count(self, shape: torch.Size) -> int:
        """How many units a weight has."""
        above, beside = unit_counts(shape, self.rows, self.cols)
        return above * beside

    def gone(self, left: Tensor) -> int:
        """How many units nothing is left of."""
        return int((self._left_in_units(left) == 0).sum())

    def conflict(self, left: Tensor) -> str | None:
        """Why no mask within ``left`` (bool ``[OC, K]``) has this pattern; None: one has."""
        counts = self._left_in_units(left)
        sizes = unit_sizes(left.shape, self.rows, self.cols).to(counts.device)
        cut = int(((counts > 0) & (counts < sizes)).sum())
        if not cut:
            return None
        return (
            f"lacks a part of {cut} of its {counts.numel()} units ({self.rows} x {self.cols} "
            f"weights) already, and pattern {self.name!r} keeps or removes them whole"
        )

    def _left_in_units(self, left: Tensor) -> Tensor:
        return unit_sums(left.double(), self.rows, self.cols)


class Row(NamedTuple):
    """``form``: what errors call it."""

    form: str
    expression: re.Pattern[str]
    make: type[Pattern]


PATTERNS: list[Row] = []
_Class = TypeVar("_Class", bound="type[Pattern]")


def pattern(form: str, expression: str) -> Callable[[_Class], _Class]:
    """Puts the decorated class into the table: for the names that ``expression`` matches whole."""

    def register(cls: _Class) -> _Class:
        PATTERNS.append(Row(form, re.compile(expression), cls))
        return cls

    return register


def pattern_of(name: str, workflow: str = "prune") -> Pattern:
    """The pattern that a name stands for.

    Raises:
        TypeError: not a string.
        ValueError: no pattern has that name, or its numbers make no sense.
    """
    if not isinstance(name, str):
        raise TypeError(f"{workflow}: pattern is a {type(name).__name__}, expected a str")
    for row in PATTERNS:
        found = row.expression.fullmatch(name)
        if found:
            try:
                return row.make.parse(name, found)
            except ValueError as error:
                raise ValueError(f"{workflow}: pattern is {name!r}, {error}") from None
    known = ", ".join(sorted(repr(row.form) for row in PATTERNS))
    raise ValueError(f"{workflow}: pattern is {name!r}, expected one of {known}")
