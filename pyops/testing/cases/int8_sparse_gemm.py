"""Random int8 products and convolutions with a sparse weight; the reference takes a dense one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyops.ops import int8_conv_relu, int8_gemm, int8_linear, sparse_pack

from . import int8_conv_relu as convs
from . import int8_gemm as products
from .sparse_gemm import DENSITIES, SHARED, masked


@dataclass
class SparseGemmCase(products.GemmCase):
    """``int8_gemm``."""

    def run(self, packed: Tensor | None = None) -> Tensor:
        packed = sparse_pack(self.weight) if packed is None else packed
        return int8_gemm(self.a, packed, self.weight.shape[0], **self.epilogue)


@dataclass
class SparseLinearCase(products.LinearCase):
    """``int8_linear``."""

    def run(self) -> Tensor:
        return int8_linear(
            self.x,
            sparse_pack(self.weight),
            self.scale_w,
            self.bias,
            residual=self.residual,
            activation=self.activation,
            out_dtype=self.out_dtype,
        )


@dataclass
class SparseConvCase(convs.ConvCase):
    """``int8_conv_relu``."""

    def run(self, packed: Tensor | None = None) -> Tensor:
        packed = sparse_pack(self.weight, self.groups) if packed is None else packed
        return int8_conv_relu(self.x, packed, self.weight.shape, **self.options)


def _masked(weight: Tensor, seed: int) -> Tensor:
    density, shared = DENSITIES[seed % len(DENSITIES)], SHARED[seed // len(DENSITIES) % len(SHARED)]
    return masked(weight, density, shared, seed)


def gemm_case(seed: int, m: int, n: int, k: int) -> SparseGemmCase:
    """That of ``int8_gemm`` with part of the weight 0; depends on its arguments alone."""
    case = products.gemm_case(seed, m, n, k)
    return SparseGemmCase(case.a, _masked(case.weight, seed), case.epilogue)


def linear_case(seed: int, m: int, n: int, k: int) -> SparseLinearCase:
    """That of ``int8_linear``, alike."""
    case = products.linear_case(seed, m, n, k)
    return SparseLinearCase(
        case.x,
        _masked(case.weight, seed),
        case.scale_w,
        case.bias,
        case.residual,
        case.activation,
        case.out_dtype,
    )


def conv_case(seed: int, depthwise: bool = False) -> SparseConvCase:
    """That of ``int8_conv_relu``, alike."""
    case = convs.conv_case(seed, depthwise)
    return SparseConvCase(case.x, _masked(case.weight, seed), case.groups, case.options)


def n_of_m(n: int, k: int, keep: int, of: int, seed: int) -> Tensor:
    """int8 ``[n, k]`` with ``keep`` of each ``of`` adjacent weights of an output not 0."""
    rng = torch.Generator().manual_seed(seed)
    values = torch.randint(1, 128, (n, k), generator=rng, dtype=torch.int8)
    order = torch.rand(n, k // of, of, generator=rng).argsort(-1).reshape(n, k)
    return torch.where(order < keep, values, torch.zeros((), dtype=torch.int8))
