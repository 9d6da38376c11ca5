"""Whether a smaller model computes what the one does that does not read the channels that left.

Both run in float64, where rounding is far below whatever a wrong cut changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ...graph.unchanged import unchanged
from ...quantize.copying import copy_model, evaluating
from ...quantize.static.batches import Call

Run = Callable[[nn.Module, Call], Any]


def plainly(model: nn.Module, call: Call) -> Any:
    """Calls the model."""
    return model(*call[0], **call[1])


def check_result(
    small: nn.Module, whole: nn.Module, call: Call, workflow: str, run: Run = plainly
) -> None:
    """Compares what ``run`` returns of both, in eval mode and without gradients.

    Integers have to be equal. Floats may differ by ``eps ** 0.75`` of the largest in their tensor:
    2e-12 in float64, 8,000 times one rounding, for what deep nets amplify; a bias of 1000 hides
    2e-9. A model that computes something in a narrower type, even in float64, is allowed as much
    for that type's ``eps``, and ``8 * sqrt(eps)`` of the spread (largest - smallest) beside it. One
    that does not run in float64 is compared in its own type. Where ``whole`` is not finite there is
    nothing to compare: 0 times an infinite channel.

    Raises:
        ValueError: they differ, the smaller one fails, or nothing is finite.
    """
    why = f"{workflow}: the forward of {type(small).__name__} depends on sizes that would change: "
    found, _ = _outcome(small, call, run)
    if isinstance(found, Exception):
        raise ValueError(f"{why}{found}") from found
    eps = _compare_in_double(small, whole, call, run, why)
    if eps is None:
        expected, eps = _outcome(whole, call, run)
        if isinstance(expected, Exception):
            raise ValueError(f"{workflow}: the model fails on example_inputs: {expected}")
        _compare(found, expected, eps, why)


def _compare_in_double(
    small: nn.Module, whole: nn.Module, call: Call, run: Run, why: str
) -> float | None:
    """None: one of them does not run in float64."""
    wide = tree_map(_double, call)
    results = [_outcome(copy_model(one, True).double(), wide, run) for one in (small, whole)]
    (found, one), (expected, other) = results
    if isinstance(found, Exception) or isinstance(expected, Exception):
        return None
    eps = max(one, other)
    _compare(found, expected, eps, why)
    return eps


def _double(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().double()
    return value


def _outcome(model: nn.Module, call: Call, run: Run) -> tuple[Any, float]:
    """What it returns or raises, and the coarsest ``eps`` that it computes with."""
    types = _FloatTypes()
    try:
        with evaluating(model), unchanged(model), types:
            torch.default_generator.manual_seed(0)  # torch.manual_seed seeds accelerators too
            return run(model, call), types.eps
    except Exception as error:
        return error, types.eps


class _FloatTypes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the coarsest float type among the results of all operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.eps = torch.finfo(torch.float64).eps

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and one.is_floating_point():
                self.eps = max(self.eps, torch.finfo(one.dtype).eps)
        return result


def _compare(found: Any, expected: Any, eps: float, why: str) -> None:
    leaves = tree_leaves(found), tree_leaves(expected)
    if len(leaves[0]) != len(leaves[1]):
        raise ValueError(f"{why}it returns {len(leaves[0])} values, expected {len(leaves[1])}")
    compared = 0
    for one, other in zip(*leaves, strict=True):
        if not isinstance(one, Tensor) or not isinstance(other, Tensor):
            if isinstance(other, (bool, int, str)) and one != other:
                raise ValueError(f"{why}it returns {one!r}, expected {other!r}")
            continue
        if one.shape != other.shape:
            given, wanted = list(one.shape), list(other.shape)
            raise ValueError(f"{why}it returns a tensor {given}, expected {wanted}")
        if not _close(one, other, eps):
            raise ValueError(f"{why}its values are not those of the model without these channels")
        exact = not other.is_floating_point()
        compared += other.numel() if exact else int(other.isfinite().sum())
    if not compared:
        raise ValueError(f"{why.split(':')[0]}: on example_inputs the model returns nothing finite")


def _close(found: Tensor, expected: Tensor, eps: float) -> bool:
    if found.dtype != expected.dtype:
        return False
    if not expected.is_floating_point():
        return torch.equal(found, expected)
    finite = expected.isfinite()
    if not bool(finite.any()):
        return True
    one, other = found[finite].double(), expected[finite].double()
    allowed = eps**0.75 * float(other.abs().max())
    if eps > torch.finfo(torch.float64).eps:
        allowed += 8 * eps**0.5 * float(other.max() - other.min())
    return bool(((one - other).abs() <= allowed).all())
