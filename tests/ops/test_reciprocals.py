"""References on a device that divides by a number as CUDA does: it multiplies by the reciprocal.

``x * (1 / 127)`` is another float32 than ``x / 127`` for one x in 14, and then so is a scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyops import ops
from pyops.ops.int8_gemm_reference import quantize_rows_reference
from pyops.ops.int8_gemm_rows_reference import norm_reference
from pyops.testing.compare import assert_same


class Reciprocals(TorchDispatchMode):
    """``x / number`` as ``x * (1 / number)``; tensors are divided by tensors."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.div.Tensor and not isinstance(args[1], Tensor):
            inverse = torch.tensor(1.0) / torch.tensor(args[1], dtype=torch.float32)
            return args[0] * inverse
        return func(*args, **(kwargs or {}))


def symmetric(x: Tensor) -> tuple[Tensor, ...]:
    return quantize_rows_reference(x, True, True)


def asymmetric(x: Tensor) -> tuple[Tensor, ...]:
    return quantize_rows_reference(x, False, False)


def int4(x: Tensor) -> tuple[Tensor | None, ...]:
    return ops.quantize_weight_int4(x, 32, symmetric=False)


def layer_norm(x: Tensor) -> tuple[Tensor, ...]:
    return (norm_reference(x, None, None, 1e-5, True, torch.float32),)


def rms_norm(x: Tensor) -> tuple[Tensor, ...]:
    return (norm_reference(x, None, None, 1e-5, False, torch.float32),)


def test_the_mode_multiplies() -> None:
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    with Reciprocals():
        changed = x / 127.0
        same = x / x.new_full((), 127.0)
    assert 0 < int((changed != x / 127.0).sum()) < 200
    assert_same(same, x / 127.0, "by a tensor")


@pytest.mark.parametrize("compute", [symmetric, asymmetric, int4, layer_norm, rms_norm])
def test_results_are_those_of_a_division(compute: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    x = torch.randn(2000, 70, generator=torch.Generator().manual_seed(0))
    expected = compute(x)
    with Reciprocals():
        found = compute(x)
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b, compute.__name__)
