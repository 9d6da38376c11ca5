"""Static int8: uint8 in, uint8 out, with one scale and zero point each; with and without ReLU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from case import Call, Case, StaticScales
from products import (
    SETS,
    TORCH_AO,
    exact_product,
    expect_equal,
    expect_within_steps,
)
from torch import Tensor

from pyops import ops

# torch.ao's own default for x86 and fbgemm: with more, kernels without VNNI saturate their int16
# sums, which would refuse them here. Our time does not depend on the codes of x.
X_CODES = 128
# Peers multiply the scales before the sums, in another order, so a tie may round the other way.
PEER_STEPS = 1
RIVALS = {"torch.ao static": TORCH_AO}


def cases(shapes: str) -> Iterator[Case]:
    """Yield every case of the set ``shapes``: without an activation, then with ReLU."""
    for relu in (False, True):
        for m, k, n in SETS[shapes]:
            yield static(m, k, n, relu)


def static(m: int, k: int, n: int, relu: bool) -> Case:
    """uint8 ``x [m, k]`` times int8 ``weight [n, k]`` plus fp32 bias to uint8 ``[m, n]``."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, X_CODES, (m, k), generator=generator, dtype=torch.uint8)
    real = torch.randn(n, k, generator=generator) / k**0.5
    weight, scale_w = ops.quantize_weight(real)
    bias = torch.randn(n, generator=generator)
    scales = StaticScales(0.03, 60, scale_w, 0.05, 10 if relu else 120, relu)
    scale_x = torch.tensor([scales.scale_x])
    zero_point_x = torch.tensor([scales.zero_point_x], dtype=torch.int32)

    def make_ours() -> Call:
        packed = ops.int8_pack(weight)
        activation = "relu" if relu else "none"
        return lambda: ops.int8_gemm(
            x,
            packed,
            n,
            scale_a=scale_x,
            zero_point_a=zero_point_x,
            scale_w=scale_w,
            bias=bias,
            activation=activation,
            out_dtype=torch.uint8,
            out_scale=scales.scale_out,
            out_zero_point=scales.zero_point_out,
        )

    def expected() -> Tensor:
        sums = exact_product(x.double() - scales.zero_point_x, weight)
        out = sums.float() * scale_x * scale_w + bias
        steps = (out.relu() if relu else out) * (1 / torch.tensor(scales.scale_out))
        return (steps.round() + scales.zero_point_out).clamp(0, 255).to(torch.uint8)

    return Case(
        kind="static_linear",
        op="int8_gemm",
        name=f"int8_static{'+relu' * relu} u8->u8 {m}x{k}x{n}",
        operations=2.0 * m * k * n,
        bytes_moved=m * k + n * k + m * n,
        make_ours=make_ours,
        check_ours=lambda result: expect_equal(result, expected()),
        check_peer=lambda result: expect_within_steps(codes(result), expected(), PEER_STEPS),
        tensors={"x": x, "weight": weight, "bias": bias},
        static=scales,
        products=((weight, m),),
        rivals=RIVALS,
    )


def codes(result: Tensor) -> Tensor:
    """Return the uint8 codes of a tensor of torch's quantized type, others as they are."""
    return result.int_repr() if result.is_quantized else result
