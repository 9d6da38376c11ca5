"""``regularizer``: a penalty that drives weights to 0 before they are pruned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..nn.masked_module import MaskedModule
from ..quantize.select import Patterns
from .layers import check_plan, make_plan, weights_of
from .matrix import matrix_of, unit_sizes, unit_sums
from .patterns import Pattern, pattern_of

Penalty = Callable[[Tensor, Pattern], Tensor]
KINDS: dict[str, Penalty] = {}


def _kind(name: str) -> Callable[[Penalty], Penalty]:
    """Puts the decorated function of ``[OC, K]`` into the table."""

    def register(penalty: Penalty) -> Penalty:
        KINDS[name] = penalty
        return penalty

    return register


@_kind("l1")
def _l1(weight: Tensor, pattern: Pattern) -> Tensor:
    return weight.abs().sum()


@_kind("group_lasso")
def _group_lasso(weight: Tensor, pattern: Pattern) -> Tensor:
    rows, cols = pattern.rows, pattern.cols
    if rows == cols == 1:
        return weight.abs().sum()
    sizes = unit_sizes(weight.shape, rows, cols).to(weight)
    squares = unit_sums(weight.square(), rows, cols)
    # sqrt has no derivative at 0, where that of a norm is taken as 0
    zero = squares == 0
    norms = squares.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)
    return (sizes.sqrt() * norms).sum()


def regularizer(
    model: nn.Module,
    kind: str = "l1",
    *,
    pattern: str = "unstructured",
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> Tensor:
    """A penalty to add to the loss, over the weights that ``prune`` would prune.

    Args:
        model: any ``nn.Module``.
        kind: "l1": the sum of ``|w|``. "group_lasso": the sum over the pattern's units (what is
            kept or removed together: blocks; for N:MxT, T by 1) of ``sqrt(size) * ||unit||_2``
            (Yuan and Lin 2006; Wen et al. 2016, arXiv:1608.03665).
        pattern: as for ``prune``.
        include, exclude: as for ``prune``.

    Returns:
        A scalar, float32 (float64 where a weight is that), differentiable everywhere but with
        gradient 0 at units of 0. NaN where a weight is NaN.

    Raises:
        TypeError: not an ``nn.Module``; a pattern of another type.
        ValueError: an unknown kind or pattern; no layer can be pruned.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"regularizer takes an nn.Module, but got {type(model).__name__}")
    if kind not in KINDS:
        known = ", ".join(map(repr, sorted(KINDS)))
        raise ValueError(f"regularizer: kind is {kind!r}, expected one of {known}")
    shape = pattern_of(pattern, "regularizer")
    plan = make_plan(model, include, exclude, with_nan=True)
    check_plan(model, plan, False, "regularizer")
    parts = []
    for weight in weights_of(model, plan):
        layer = weight.layers[weight.name]
        value = layer.masked_weight() if isinstance(layer, MaskedModule) else layer.weight
        dtype = torch.promote_types(value.dtype, torch.float32)  # float16 has no small squares
        parts.append(KINDS[kind](matrix_of(value).to(dtype), shape))
    return torch.stack(parts).sum()
