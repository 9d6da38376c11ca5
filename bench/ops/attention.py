"""``attention`` in float32 and bfloat16: encoders, long and causal sequences, decoding."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from case import Call, Case, WrongResultError
from torch import Tensor

from pyops import ops
from pyops.ops.attention import kernel_of, multiplies_pairs
from pyops.testing.cases.attention import AttentionCase, causal_as_mask

# B, H, Hkv, Tq, Tk, D, causal.
Shape = tuple[int, int, int, int, int, int, bool]
SHAPES: tuple[Shape, ...] = (
    (1, 12, 12, 16, 16, 32, False),
    (1, 12, 12, 128, 128, 32, False),
    (8, 12, 12, 128, 128, 32, False),
    (32, 12, 12, 128, 128, 32, False),
    (1, 12, 12, 512, 512, 64, False),
    (8, 12, 12, 512, 512, 64, False),
    (1, 16, 16, 2048, 2048, 64, True),
    (1, 32, 32, 1, 512, 128, False),
    (1, 32, 32, 1, 4096, 128, False),
    (1, 32, 8, 1, 4096, 128, False),
)
ODD: tuple[Shape, ...] = ((2, 3, 3, 67, 131, 33, False), (1, 5, 5, 250, 250, 80, True))
SMALL: tuple[Shape, ...] = tuple((1, 4, 4, t, t, 32, False) for t in (4, 8, 32, 64))
TINY: tuple[Shape, ...] = ((1, 2, 2, 7, 9, 8, False), (1, 2, 1, 5, 5, 16, True))
# A peer may round weights to bf16 twice and scores to bf16: so many times our bound.
PEER_FACTOR = 8.0


def cases(shapes: str) -> Iterator[Case]:
    """Yield every case of ``shapes``: "all", "main", "odd", "small" or "tiny"."""
    sets = {"all": SHAPES + ODD, "main": SHAPES, "odd": ODD, "small": SMALL, "tiny": TINY}
    for dtype in (torch.float32, torch.bfloat16):
        for shape in sets[shapes]:
            yield attention(shape, dtype)


def attention(shape: Shape, dtype: torch.dtype) -> Case:
    """q, k and v as a projection leaves them: ``[B, T, H, D]`` seen as ``[B, H, T, D]``."""
    batch, heads, kv_heads, queries, keys, depth, causal = shape
    generator = torch.Generator().manual_seed(0)

    def tensor(h: int, t: int) -> Tensor:
        return torch.randn(batch, t, h, depth, generator=generator).to(dtype).transpose(1, 2)

    q, k, v = tensor(heads, queries), tensor(kv_heads, keys), tensor(kv_heads, keys)

    def make_ours() -> Call:
        return lambda: ops.attention(q, k, v, is_causal=causal)

    def check(result: Tensor, factor: float) -> None:
        one = slice(0, 1)  # of the batch: float64 takes its time
        case = AttentionCase(q[one], k[one], v[one])
        exact, bound = (causal_as_mask(case) if causal else case).exact(multiplies_pairs(dtype))
        expect_within(result[one], exact, factor * bound)

    products = 2.0 * batch * heads * queries * keys * depth * (0.5 if causal else 1.0)
    return Case(
        kind="causal attention" if causal else "attention",
        op="attention",
        peak=peak_of(dtype),
        kernel=kernel_of(dtype),
        name=f"attention {str(dtype).removeprefix('torch.')} B{batch} H{heads}/{kv_heads} "
        f"{queries}x{keys}x{depth}{' causal' if causal else ''}",
        operations=2.0 * products,
        bytes_moved=float(q.element_size() * (2 * q.numel() + 2 * k.numel())),
        make_ours=make_ours,
        check_ours=lambda result: check(result, 1.0),
        check_peer=lambda result: check(result, PEER_FACTOR),
        tensors={"q": q, "k": k, "v": v},
    )


def peak_of(dtype: torch.dtype) -> str:
    """Return the name of the instruction peak that bounds the kernel for such tensors.

    That of ``tdpbf16ps`` is not measured, nor is one for the generic kernel.
    """
    peaks = {"avx512bf16": "vdpbf16ps_zmm", "avx512": "fma_zmm", "avx2": "fma_ymm"}
    return peaks.get(kernel_of(dtype), "not measured")


def expect_within(result: Tensor, exact: Tensor, bound: Tensor) -> None:
    """Raise WrongResultError where the error is larger than its bound."""
    excess = (result.double() - exact).abs() / bound
    if not bool((excess <= 1).all()):
        raise WrongResultError(f"is off by {excess.max().item():.2f} times the bound")
