"""Random int8 products with every kind of epilogue."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyops.ops import (
    ACTIVATIONS,
    int8_gemm,
    int8_linear,
    int8_pack,
    packing,
)
from pyops.ops.epilogue import ACTIVATION_CODE, OUT_DTYPE_CODE, OUT_DTYPES
from pyops.ops.int8_gemm_reference import (
    int8_gemm_reference,
    int8_linear_reference,
)

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass
class GemmCase:
    """Arguments of ``int8_gemm``: codes ``a``, the plain ``weight``, and the epilogue."""

    a: Tensor
    weight: Tensor
    epilogue: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        shown = {
            key: value if not isinstance(value, Tensor) else f"{value.dtype}{list(value.shape)}"
            for key, value in self.epilogue.items()
        }
        m, k = self.a.shape
        return f"M{m} N{self.weight.shape[0]} K{k} {self.a.dtype} {shown}"

    def run(self) -> Tensor:
        """By the kernel that is active."""
        return int8_gemm(self.a, int8_pack(self.weight), self.weight.shape[0], **self.epilogue)

    def reference(self) -> Tensor:
        e = {
            "scale_a": None,
            "zero_point_a": None,
            "scale_w": None,
            "bias": None,
            "residual": None,
            "activation": "none",
            "out_dtype": torch.float32,
            "out_scale": 1.0,
            "out_zero_point": 0,
        } | self.epilogue
        return int8_gemm_reference(
            self.a,
            packing.pack_plain(self.weight),
            self.weight.shape[0],
            e["scale_a"],
            e["zero_point_a"],
            e["scale_w"],
            e["bias"],
            e["residual"],
            ACTIVATION_CODE[e["activation"]],
            OUT_DTYPE_CODE[e["out_dtype"]],
            e["out_scale"],
            e["out_zero_point"],
        )


def random_codes(rng: torch.Generator, rows: int, cols: int, signed: bool, extreme: int) -> Tensor:
    """8-bit codes: random (extreme 0), or all lowest (1), all highest (2)."""
    dtype = torch.int8 if signed else torch.uint8
    info = torch.iinfo(dtype)
    if extreme:
        return torch.full((rows, cols), info.min if extreme == 1 else info.max, dtype=dtype)
    return torch.randint(info.min, info.max + 1, (rows, cols), dtype=dtype, generator=rng)


def gemm_case(seed: int, m: int, n: int, k: int) -> GemmCase:
    """A case that depends on its arguments alone; over many seeds every option comes up."""
    rng = torch.Generator().manual_seed(seed)

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=rng))

    signed = bool(pick(2))
    a = random_codes(rng, m, k, signed, pick(8) if pick(2) else 0) if k else None
    a = a if a is not None else torch.empty(m, 0, dtype=torch.int8 if signed else torch.uint8)
    extreme = pick(3) if pick(4) == 0 else 0
    weight = random_codes(rng, n, k, True, extreme)
    out_dtype = OUT_DTYPES[pick(len(OUT_DTYPES))]
    e: dict[str, Any] = {"out_dtype": out_dtype}
    if pick(4):
        shape = (m,) if pick(2) else (1,)
        low, high = (-128, 128) if signed else (0, 256)
        e["zero_point_a"] = torch.randint(low, high, shape, dtype=torch.int32, generator=rng)
    if out_dtype == torch.int32:
        return GemmCase(a, weight, e)
    e["activation"] = ACTIVATIONS[pick(len(ACTIVATIONS))]
    spread = 4.0 / (128.0 * 128.0 * max(k, 1) ** 0.5)
    if pick(8):
        shape = (m,) if pick(2) else (1,)
        e["scale_a"] = torch.rand(shape, generator=rng) * spread**0.5 + 1e-6
    if pick(8):
        e["scale_w"] = torch.rand(n, generator=rng) * spread**0.5 + 1e-6
    if pick(2):
        e["bias"] = torch.randn(n, generator=rng)
    if pick(3) == 0:
        e["residual"] = torch.randn(m, n, generator=rng).to(FLOATS[pick(3)])
    if out_dtype in (torch.int8, torch.uint8):
        info = torch.iinfo(out_dtype)
        e["out_scale"] = float(torch.rand((), generator=rng)) * 0.1 + 1e-3
        e["out_zero_point"] = int(torch.randint(info.min, info.max + 1, (), generator=rng))
    return GemmCase(a, weight, e)


@dataclass
class LinearCase:
    """Arguments of ``int8_linear``."""

    x: Tensor
    weight: Tensor
    scale_w: Tensor
    bias: Tensor | None
    residual: Tensor | None
    activation: str
    out_dtype: torch.dtype

    @property
    def label(self) -> str:
        m, k = self.x.shape
        return (
            f"M{m} N{self.weight.shape[0]} K{k} {self.x.dtype}->{self.out_dtype} {self.activation}"
        )

    def run(self) -> Tensor:
        return int8_linear(
            self.x,
            int8_pack(self.weight),
            self.scale_w,
            self.bias,
            residual=self.residual,
            activation=self.activation,
            out_dtype=self.out_dtype,
        )

    def reference(self) -> Tensor:
        return int8_linear_reference(
            self.x,
            packing.pack_plain(self.weight),
            self.scale_w,
            self.bias,
            self.residual,
            ACTIVATION_CODE[self.activation],
            OUT_DTYPE_CODE[self.out_dtype],
        )


def linear_case(seed: int, m: int, n: int, k: int) -> LinearCase:
    """A case that depends on its arguments alone."""
    rng = torch.Generator().manual_seed(seed)

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=rng))

    x = torch.randn(m, k, generator=rng) * 10.0 ** (pick(9) - 4)
    if m and pick(6) == 0:
        x[pick(m)] = 0
    if m and k and pick(8) == 0:
        x[pick(m), pick(k)] = (torch.nan, torch.inf)[pick(2)]
    dtype = FLOATS[pick(3)]
    return LinearCase(
        x.to(dtype),
        random_codes(rng, n, k, True, 0),
        torch.rand(n, generator=rng) * 0.02 + 1e-6,
        torch.randn(n, generator=rng) if pick(2) else None,
        torch.randn(m, n, generator=rng).to(FLOATS[pick(3)]) if pick(3) == 0 else None,
        ACTIVATIONS[pick(len(ACTIVATIONS))],
        FLOATS[pick(3)],
    )


def quantizer_inputs() -> list[Tensor]:
    """Rows of whole vectors and tails, zeros, denormals, NaN, infinities, extremes."""
    rng = torch.Generator().manual_seed(3)
    rows = [torch.randn(5, k, generator=rng) * 3 for k in (1, 2, 7, 8, 15, 16, 17, 33, 64, 100)]
    special = torch.randn(8, 19, generator=rng)
    special[0] = 0
    special[1, 4], special[2, 18], special[3, 0] = torch.nan, torch.inf, -torch.inf
    special[4] *= 1e-41
    special[5] = 2.5 * torch.sign(special[5])
    special[6] = special[6].abs() + 1
    special[7] = -0.0
    tiny = torch.tensor([[1e-45, 0.0, 0.0], [0.0, -5e-44, 2e-44], [9e-44, 0.0, -0.0]])
    wide = torch.tensor([[3.0e38, -3.0e38, 1.0], [1e-38, 2e-38, -1e-38]])
    return [*rows, special, tiny, wide, torch.empty(0, 5), torch.empty(4, 0)]
