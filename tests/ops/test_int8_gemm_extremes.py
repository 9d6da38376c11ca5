"""Where floats end: ranges of rows that are quantized, and outputs in 16-bit floats."""

import math

import pytest
import torch

from pyops import ops
from pyops.ops.int8_gemm_reference import quantize_rows_reference
from pyops.testing.cases.int8_gemm import random_codes
from pyops.testing.compare import assert_same


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_range_is_found_wherever_it_lies(
    kernel: str, dtype: torch.dtype, symmetric: bool
) -> None:
    """The largest, the smallest and what is not finite, of either sign, at each place of a row."""
    extremes = (3.0, -3.0, math.inf, -math.inf, math.nan, math.copysign(math.nan, -1.0))
    generator = torch.Generator().manual_seed(8)
    for k in (1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 97):
        x = torch.rand(len(extremes) * k, k, generator=generator)
        x *= torch.tensor([-1.0, 1.0])[torch.arange(len(x)) % 2, None]  # rows of one sign
        x[torch.arange(len(x)), torch.arange(len(x)) % k] = torch.tensor(
            extremes
        ).repeat_interleave(k)
        x = x.to(dtype)
        got = ops.quantize_rows(x, symmetric=symmetric)
        expected = quantize_rows_reference(x, symmetric, True)
        for name, a, b in zip(("q", "scale", "zero_point"), got, expected, strict=True):
            assert_same(a, b, f"{kernel} {name} of K = {k}")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_at_the_ends_of_the_range(kernel: str, dtype: torch.dtype) -> None:
    """Denormal, tied, overflowing and NaN outputs, next to ordinary ones, round as torch does."""
    m, n, k = 37, 130, 20
    generator = torch.Generator().manual_seed(9)
    a, w = (random_codes(generator, rows, k, signed=True, extreme=0) for rows in (m, n))
    tiny = torch.finfo(dtype).tiny
    scale_w = torch.tensor([tiny / 3e5, tiny * 2.0**-7, 2.0**-9, 1.0, torch.finfo(dtype).max / 1e4])
    scale_w = scale_w.repeat(n // len(scale_w))
    scale_a = torch.ones(m)
    scale_a[5] = torch.nan
    packed = ops.int8_pack(w)
    got = ops.int8_gemm(a, packed, n, scale_a=scale_a, scale_w=scale_w, out_dtype=dtype)
    exact = a.double() @ w.double().T
    assert_same(got, (exact.float() * scale_a[:, None] * scale_w).to(dtype), kernel)
    magnitudes = got[6:].float().abs()
    assert ((magnitudes > 0) & (magnitudes < tiny)).any()
    assert torch.isinf(magnitudes).any()
