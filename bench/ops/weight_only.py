"""``int8_weight_linear`` and ``int4_linear``, and their peers, on weights that no cache holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from case import Call, Case, WrongResultError, sqnr_db
from rotate import rotate
from torch import Tensor

from pyops import ops
from pyops.ops.weight_only_packing import group_count
from pyops.ops.weight_only_reference import dequantize_int4

# (M, K, N): one token through the layers of a 7B model; a few tokens; prompts.
SHAPES = (
    (1, 4096, 11008),
    (1, 11008, 4096),
    (1, 4096, 4096),
    (2, 4096, 4096),
    (4, 4096, 4096),
    (8, 4096, 4096),
    (32, 4096, 4096),
    (128, 4096, 4096),
    (512, 4096, 4096),
)
ODD = ((1, 383, 385), (5, 1000, 1001), (17, 767, 3071))
SMALL = ((1, 64, 64), (1, 384, 384), (1, 768, 768))
TINY = ((1, 16, 16), (3, 37, 19), (9, 64, 64))
GROUP_SIZE = 128
FEW_ROWS = 8  # memory binds
# Far below these a peer computes something else: 8 and 4 bits, and bf16, are better.
SQNR_DB = {"int8_weight": 20.0, "int4_weight": 10.0}


def cases(shapes: str) -> Iterator[Case]:
    """Yield every case of ``shapes``: "all", "main", "odd", "small" or "tiny"."""
    sets = {"all": SHAPES + ODD, "main": SHAPES, "odd": ODD, "small": SMALL, "tiny": TINY}
    for m, k, n in sets[shapes]:
        yield int8_case(m, k, n)
        yield int4_case(m, k, n, GROUP_SIZE, True)
    for m, k, n in sets[shapes][:1]:
        yield int4_case(m, k, n, GROUP_SIZE, False)
        yield int4_case(m, k, n, 32, True)


def operands(m: int, k: int, n: int) -> dict[str, Tensor]:
    """Return random fp32 x ``[m, k]``, weight ``[n, k]`` and bias ``[n]``."""
    generator = torch.Generator().manual_seed(0)
    return {
        "x": torch.randn(m, k, generator=generator),
        "weight": torch.randn(n, k, generator=generator) / k**0.5,
        "bias": torch.randn(n, generator=generator),
    }


def int8_case(m: int, k: int, n: int) -> Case:
    """fp32 ``x [m, k]`` to fp32 ``[m, n]`` with int8 weights and bias."""
    given = operands(m, k, n)
    x, bias = given["x"], given["bias"]
    codes, scale = ops.quantize_weight(given["weight"])

    def make_ours() -> Call:
        packed = ops.int8_weight_pack(codes)
        return rotate(packed, lambda copy: ops.int8_weight_linear(x, copy, scale, bias))

    def weight() -> Tensor:
        return codes.double() * scale[:, None].double()

    name = f"int8_weight_linear {m}x{k}x{n}"
    return make_case("int8_weight", name, given, make_ours, weight, n * (k + 4.0))


def int4_case(m: int, k: int, n: int, group_size: int, symmetric: bool) -> Case:
    """fp32 ``x [m, k]`` to fp32 ``[m, n]`` with int4 weights and bias."""
    given = operands(m, k, n)
    x, bias = given["x"], given["bias"]
    codes, scale, zero = ops.quantize_weight_int4(given["weight"], group_size, symmetric)

    def make_ours() -> Call:
        packed = ops.int4_pack(codes, scale, zero, group_size=group_size)
        return rotate(packed, lambda copy: ops.int4_linear(x, copy, n, bias))

    def weight() -> Tensor:
        points = None if zero is None else zero.double()
        return dequantize_int4(codes.double(), scale.double(), points, group_size).double()

    per_group = 4 if symmetric else 5
    kind = f"group {group_size}{'' if symmetric else ' with zero points'}"
    size = n * (k / 2 + per_group * group_count(k, group_size))
    name = f"int4_linear {kind} {m}x{k}x{n}"
    return make_case("int4_weight", name, given, make_ours, weight, size)


def make_case(
    kind: str,
    name: str,
    given: dict[str, Tensor],
    make_ours: Callable[[], Call],
    weight: Callable[[], Tensor],
    weight_bytes: float,
) -> Case:
    """Ours is checked against fp64 on its own weight, a peer against the float weight."""
    x, bias = given["x"], given["bias"]
    (m, k), n = x.shape, bias.shape[0]

    def check_ours(result: Tensor) -> None:
        exact_weight = weight()
        exact = x.double() @ exact_weight.T + bias
        # 9 is 8 (zero points: scale * |zero - 8|) and the code; csrc/cpu/weight_only/weight_only.h.
        magnitude = x.abs().double() @ (9 * exact_weight.abs() + exact_weight.abs().amax()).T
        worst = ((result.double() - exact).abs() / ((k + 10) * 2.0**-24 * magnitude + 1e-6)).max()
        if result.shape != exact.shape or not worst <= 1:
            raise WrongResultError(f"is {float(worst):.3g} times the bound from the fp64 result")

    def check_peer(result: Tensor) -> None:
        quality = sqnr_db(result, x.double() @ given["weight"].double().T + bias)
        if quality < SQNR_DB[kind]:
            raise WrongResultError(f"SQNR is {quality:.1f} dB, expected at least {SQNR_DB[kind]}")

    return Case(
        kind=kind,
        # The roofline's peaks are those of int8: with more rows they bound nothing here.
        op="weight_only" if m <= FEW_ROWS else None,
        name=name,
        operations=2.0 * m * k * n,
        bytes_moved=4.0 * m * k + weight_bytes + 4.0 * m * n,
        make_ours=make_ours,
        check_ours=check_ours,
        check_peer=check_peer,
        tensors=given,
    )
