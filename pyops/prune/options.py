"""The checked arguments that say what to remove."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .criteria import Criterion, criterion_of
from .patterns import Pattern, pattern_of

SPARSITY = 0.9  # where neither the caller nor the pattern says another
SCOPES = ("layer", "global")


@dataclass(frozen=True)
class Options:
    """``sparsity``: the share to remove in the end."""

    sparsity: float
    pattern: Pattern
    criterion: Criterion
    scope: str

    @property
    def label(self) -> str:
        """What records say."""
        label = f"pruned: {self.pattern.name}, {self.criterion.name}"
        if self.pattern.sparsity is not None:
            return label  # each group loses its share
        return f"{label}, by {'output' if self.criterion.by_row else self.scope}"


def make_options(
    sparsity: float | None,
    retain: float | None,
    pattern: str,
    criterion: str,
    scope: str,
    generator: torch.Generator | None,
    workflow: str = "prune",
) -> Options:
    """Checks them; see ``prune``."""
    shape = pattern_of(pattern, workflow)
    measure = criterion_of(criterion, generator, workflow)
    share = _share(sparsity, retain, shape, workflow)
    if scope not in SCOPES:
        known = " or ".join(map(repr, SCOPES))
        raise ValueError(f"{workflow}: scope is {scope!r}, expected {known}")
    if scope == "global":
        why = None
        if shape.sparsity is not None:
            why = f"pattern {shape.name!r} removes the same share everywhere"
        elif measure.by_row or measure.local:
            why = f"scores of criterion {measure.name!r} differ from layer to layer"
        if why is not None:
            raise ValueError(f"{workflow}: scope='global' compares layers, but {why}")
    return Options(share, shape, measure, scope)


def check_shares(sparsity: float | None, retain: float | None, workflow: str) -> None:
    """Each of them, where it is given."""
    for name, value in (("sparsity", sparsity), ("retain", retain)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{workflow}: {name} is a {type(value).__name__}, expected a float")
        if not 0 < value < 1:
            raise ValueError(f"{workflow}: {name} is {value}, expected above 0 and below 1")


def _share(sparsity: float | None, retain: float | None, pattern: Pattern, workflow: str) -> float:
    check_shares(sparsity, retain, workflow)
    if sparsity is not None and retain is not None:
        raise ValueError(
            f"{workflow}: both sparsity={sparsity} and retain={retain} are given, expected one"
        )
    share = sparsity if retain is None else 1 - retain
    if pattern.sparsity is None:
        return SPARSITY if share is None else float(share)
    if share is not None and abs(share - pattern.sparsity) > 1e-6:
        given = f"sparsity={sparsity}" if retain is None else f"retain={retain}"
        raise ValueError(
            f"{workflow}: pattern {pattern.name!r} has sparsity {pattern.sparsity:g}, which "
            f"contradicts {given}"
        )
    return pattern.sparsity
