"""Random products of float rows with int8 and int4 weights, with exact results and bounds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pyops.ops import (
    ACTIVATIONS,
    int4_linear,
    int4_pack,
    int8_weight_linear,
    int8_weight_pack,
    weight_only_packing,
)
from pyops.ops.epilogue import ACTIVATION_CODE, OUT_DTYPE_CODE
from pyops.ops.weight_only_reference import int4_linear_reference, int8_weight_linear_reference

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# Unit roundoff: half the distance from 1 to the next number.
ROUNDOFF = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
# The smallest step of the type, of which half may be lost below the normal range.
SMALLEST = {torch.float32: 2.0**-149, torch.bfloat16: 2.0**-133, torch.float16: 2.0**-24}
# No activation is steeper than 1.13 (gelu at 1.4), and ours are within 1e-6 |v| of the exact ones
# (tests/ops/test_int8_gemm.py).
STEEPEST, ACTIVATION_ERROR = 1.13, 1e-6

_EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda v: v,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda v: F.gelu(v, approximate="tanh"),
    "silu": F.silu,
}


@dataclass
class WeightCase:
    """Arguments of ``int8_weight_linear`` (``group_size`` 0) or of ``int4_linear``."""

    x: Tensor
    codes: Tensor
    scale: Tensor
    zero: Tensor | None
    group_size: int
    bias: Tensor | None
    residual: Tensor | None
    activation: str
    out_dtype: torch.dtype

    @property
    def label(self) -> str:
        (m, k), n = self.x.shape, self.codes.shape[0]
        kind = f"int4/{self.group_size}{'z' if self.zero is not None else ''}"
        return (
            f"{kind if self.group_size else 'int8'} M{m} N{n} K{k} {self.x.dtype}->"
            f"{self.out_dtype} {self.activation}"
        )

    def pack(self) -> Tensor:
        if not self.group_size:
            return int8_weight_pack(self.codes)
        return int4_pack(self.codes, self.scale, self.zero, group_size=self.group_size)

    def run(self, packed: Tensor | None = None) -> Tensor:
        """By the kernel that is active."""
        packed = self.pack() if packed is None else packed
        options: dict[str, Any] = {
            "residual": self.residual,
            "activation": self.activation,
            "out_dtype": self.out_dtype,
        }
        if self.group_size:
            return int4_linear(self.x, packed, self.codes.shape[0], self.bias, **options)
        return int8_weight_linear(self.x, packed, self.scale, self.bias, **options)

    def reference(self) -> Tensor:
        tail = (
            self.bias,
            self.residual,
            ACTIVATION_CODE[self.activation],
            OUT_DTYPE_CODE[self.out_dtype],
        )
        if self.group_size:
            packed = weight_only_packing.pack_plain_int4(
                self.codes, self.scale, self.zero, self.group_size
            )
            return int4_linear_reference(self.x, packed, self.codes.shape[0], *tail)
        packed = weight_only_packing.pack_plain_int8(self.codes)
        return int8_weight_linear_reference(self.x, packed, self.scale, *tail)

    def _per_weight(self, values: Tensor) -> Tensor:
        """Values of groups, or of channels, as float64 ``[N, K]``."""
        k = self.codes.shape[1]
        if self.group_size:
            return values.double().repeat_interleave(self.group_size, 1)[:, :k]
        return values.double()[:, None].expand(-1, k)

    def exact(self) -> tuple[Tensor, Tensor]:
        """The result in float64 and how far a kernel may be from it, element by element.

        With ``u = 2**-24``: the sum is within ``(K + 8) u (|x| @ (|w| + |z|))``, where ``z`` is
        ``scale * (zero - 8)``, for codes with zero points are multiplied less 8 and corrected per
        group. Bias and residual round once each; then the activation, then the output type.
        """
        x, scale = self.x.double(), self._per_weight(self.scale)
        zero, offset = torch.zeros_like(scale), torch.zeros_like(scale)
        if self.zero is not None:
            zero = self._per_weight(self.zero)
            offset = (zero - 8).abs() * scale
        weight = (self.codes.double() - zero) * scale
        v = x @ weight.T
        u, k = ROUNDOFF[torch.float32], x.shape[1]
        bound = (k + 8) * u * (x.abs() @ (weight.abs() + offset).T)
        for extra in (self.bias, self.residual):
            if extra is not None:
                v = v + extra.double()
                bound = bound + u * (v.abs() + extra.double().abs())
        result = _EXACT[self.activation](v)
        if self.activation != "none":
            bound = STEEPEST * bound + ACTIVATION_ERROR * v.abs() + 1e-38
        own = ROUNDOFF[self.out_dtype]
        return result, bound * (1 + 2 * own) + own * result.abs() + SMALLEST[self.out_dtype]


def weight_case(seed: int, m: int, n: int, k: int, kind: int | None = None) -> WeightCase:
    """A case that depends on its arguments alone; over many seeds every option comes up.

    ``kind``: 0 int8; 1, 2, 3 symmetric int4 in groups of 32, 64, 128; 4, 5, 6 with zero points;
    None: by the seed.
    """
    rng = torch.Generator().manual_seed(seed)

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=rng))

    kind = pick(7) if kind is None else kind
    group_size = 0 if kind == 0 else (32, 64, 128)[(kind - 1) % 3]
    x = torch.randn(m, k, generator=rng) * 2.0 ** (pick(7) - 3)
    low, high, dtype = (-8, 8, torch.int8) if kind < 4 else (0, 16, torch.uint8)
    if kind == 0:
        low, high = -128, 128
    if pick(4) == 0:  # all lowest or all highest codes
        low, high = (low, low + 1) if pick(2) else (high - 1, high)
    codes = torch.randint(low, high, (n, k), dtype=dtype, generator=rng)
    groups = weight_only_packing.group_count(k, group_size) if group_size else 0
    shape = (n, groups) if group_size else (n,)
    spread = 1.0 / (128.0 if kind == 0 else 8.0) / max(k, 1) ** 0.5
    scale = (torch.rand(shape, generator=rng) + 1e-3) * spread
    zero = None
    if kind > 3:
        zero = torch.randint(0, 16, (n, groups), dtype=torch.uint8, generator=rng)
    return WeightCase(
        x.to(FLOATS[pick(3)]),
        codes,
        scale,
        zero,
        group_size,
        torch.randn(n, generator=rng) if pick(2) else None,
        torch.randn(m, n, generator=rng).to(FLOATS[pick(3)]) if pick(3) == 0 else None,
        ACTIVATIONS[pick(len(ACTIVATIONS))],
        FLOATS[pick(3)],
    )
