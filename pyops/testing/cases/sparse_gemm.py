"""Random products with a sparse weight, with exact results and the bounds of ``conv_relu``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyops.ops import sparse_linear, sparse_pack
from pyops.testing.cases.conv_relu import ConvCase, conv_case

# Shares of entries that are not 0, and how many adjacent outputs share a pattern.
DENSITIES = (0.5, 0.1, 0.0, 1.0, 0.03)
SHARED = (1, 1, 4, 16, 3)


def masked(weight: Tensor, density: float, shared: int, seed: int) -> Tensor:
    """``weight`` with all but a ``density`` of it 0, in a pattern that ``shared`` outputs share."""
    rng = torch.Generator().manual_seed(seed)
    groups = -(-weight.shape[0] // shared)
    keep = torch.rand((groups, *weight.shape[1:]), generator=rng) < density
    keep = keep.repeat_interleave(shared, 0)[: weight.shape[0]]
    return torch.where(keep, weight, torch.zeros((), dtype=weight.dtype))


def sparse_conv_case(seed: int, dtype: torch.dtype | None = None) -> ConvCase:
    """``conv_case`` with a sparse weight."""
    case = conv_case(seed, dtype)
    density, shared = DENSITIES[seed % len(DENSITIES)], SHARED[seed // len(DENSITIES) % len(SHARED)]
    case.weight = masked(case.weight, density, shared, seed)
    case.algorithm = "sparse"
    return case


def in_panels(packed: Tensor) -> bool:
    """Whether a packed weight has outputs in lanes (``blocks.h``): no depth of a block of x."""
    return int(packed[48:52].view(torch.int32)) == 0


def few_form(packed: Tensor) -> Tensor:
    """The bytes of the form for few rows (``few_rows.h``), a view; empty where there is none."""
    words = packed[:64].view(torch.int32)
    if int(words[13]) == 0:
        return packed[:0]
    of_codes = int(words[6]) == 1
    first, outputs, groups = int(packed[64:72].view(torch.int64)), int(words[7]), int(words[11])
    table = first - 64 - (-(-4 * outputs // 8) * 8 if of_codes else 0)
    if int(words[13]) >> 16:  # panels of codes (panels.h): 64 outputs each, at whole lines
        table = 8 * (groups * -(-outputs // groups // 64) + 1)
    end = int(packed[64 + table - 8 : 64 + table].view(torch.int64))
    return packed[-(-end // 64) * 64 :]


@dataclass
class LinearCase:
    """Arguments of ``sparse_linear``."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    residual: Tensor | None = None
    activation: str = "none"

    @property
    def label(self) -> str:
        zeros = float((self.weight == 0).double().mean())
        return (
            f"x{list(self.x.shape)} w{list(self.weight.shape)} {zeros:.0%} zeros {self.x.dtype} "
            f"{self.activation}"
        )

    def run(self, packed: Tensor | None = None) -> Tensor:
        """By the kernel that is active."""
        packed = sparse_pack(self.weight) if packed is None else packed
        n = self.weight.shape[0]
        return sparse_linear(
            self.x,
            packed,
            n,
            bias=self.bias,
            residual=self.residual,
            activation=self.activation,
        )

    def exact(self) -> tuple[Tensor, Tensor]:
        """The result in float64, and the bound of the error."""
        rows = self.x.reshape(-1, self.x.shape[-1])[..., None, None]
        image = ConvCase(rows, self.weight[..., None, None], bias=self.bias)
        image.activation = self.activation
        if self.residual is not None:
            image.residual = self.residual.reshape(-1, self.weight.shape[0])[..., None, None]
        shape = (*self.x.shape[:-1], self.weight.shape[0])
        exact, bound = image.exact()
        return exact.reshape(shape), bound.reshape(shape)


def linear_case(m: int, n: int, k: int, seed: int, dtype: torch.dtype) -> LinearCase:
    """A case that depends on its arguments alone."""
    rng = torch.Generator().manual_seed(seed)
    density, shared = DENSITIES[seed % len(DENSITIES)], SHARED[seed // len(DENSITIES) % len(SHARED)]
    weight = masked(torch.randn(n, k, generator=rng), density, shared, seed).to(dtype)
    case = LinearCase(torch.randn(m, k, generator=rng).to(dtype), weight)
    if seed % 2:
        case.bias = torch.randn(n, generator=rng)
    if seed % 3 == 0:
        case.residual = torch.randn(m, n, generator=rng).to(dtype)
    case.activation = ("none", "relu", "gelu", "silu")[seed % 4]
    return case
