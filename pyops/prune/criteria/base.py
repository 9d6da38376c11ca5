"""What a criterion is, and the table of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from ..patterns.base import Pattern, Scored


@dataclass
class Work:
    """One weight to prune.

    ``weight``: a float32 (or float64) copy, ``[OC, K]``, 0 where it is gone. ``left``: its mask so
    far, bool ``[OC, K]``; None: all.
    ``groups``: of a convolution: OC / groups outputs share their inputs. ``seen``: what the
    criterion collected from the calibration batches.
    """

    name: str
    weight: Tensor
    groups: int = 1
    left: Tensor | None = None
    seen: Tensor | None = None


class Criterion(ABC):
    """Gives scores, or masks and new weights itself.

    ``data``: what it needs: "" (nothing), "inputs" (of the layers) or "loss" (its gradients).
    ``by_row``: scores can be compared within an output only; ``local``: within a layer only.
    """

    data: ClassVar[str] = ""
    by_row: ClassVar[bool] = False
    local: ClassVar[bool] = False

    def __init__(self, name: str, generator: torch.Generator | None = None) -> None:
        self.name = name
        self.generator = generator

    @abstractmethod
    def scores(self, work: Work) -> Tensor:
        """``[OC, K]``, the larger the better; finite."""

    def collect(self, columns: Tensor, seen: Tensor | None) -> Tensor:
        """What is kept of a layer's inputs: a sum over the calls, ``seen`` being the sum so far.

        ``columns [groups, K, L]``: the L vectors that each row of the weight is multiplied by.
        """
        raise NotImplementedError

    def choose(
        self, works: Sequence[Work], pattern: Pattern, sparsity: float
    ) -> list[tuple[Tensor, Tensor | None]]:
        """(mask, new weight or None where weights that stay keep their value) for each.

        Several works share one threshold.
        """
        if self.by_row:
            return [
                (pattern.masks_by_row(Scored(self.scores(work), work.left), sparsity), None)
                for work in works
            ]
        scored = [Scored(self.scores(work), work.left) for work in works]
        return [(mask, None) for mask in pattern.masks(scored, sparsity)]


CRITERIA: dict[str, type[Criterion]] = {}
_Class = TypeVar("_Class", bound="type[Criterion]")


def criterion(name: str) -> Callable[[_Class], _Class]:
    """Puts the decorated class into the table, under the name that ``prune`` takes."""

    def register(cls: _Class) -> _Class:
        CRITERIA[name] = cls
        return cls

    return register


def criterion_of(
    name: str, generator: torch.Generator | None = None, workflow: str = "prune"
) -> Criterion:
    """The criterion of that name.

    Raises:
        TypeError: ``generator`` is not a ``torch.Generator``.
        ValueError: no criterion has that name, or ``generator`` is given to one that draws nothing.
    """
    if not isinstance(name, str) or name not in CRITERIA:
        known = ", ".join(map(repr, sorted(CRITERIA)))
        raise ValueError(f"{workflow}: criterion is {name!r}, expected one of {known}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"{workflow}: generator is a {type(generator).__name__}, expected a torch.Generator"
        )
    if generator is not None and name != "random":
        raise ValueError(f"{workflow}: generator= goes with criterion='random', not {name!r}")
    return CRITERIA[name](name, generator)
