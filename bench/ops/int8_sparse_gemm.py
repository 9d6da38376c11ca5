"""``int8_linear`` with a sparse weight against the same with a dense one, and float peers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from breakeven import Question
from case import Call, Case
from products import exact_product, expect_close, expect_equal, quantize_rows
from rotate import rotate
from torch import Tensor

from ops.sparse_gemm import PATTERNS, SETS, SPARSITIES
from pyops import ops
from pyops.ops.int8_sparse_gemm import OP
from pyops.testing.cases.int8_sparse_gemm import n_of_m
from pyops.testing.cases.sparse_gemm import masked

N_OF_M = ((2, 4), (1, 4), (2, 8))
BLOCK_OUTPUTS, BLOCK_DEPTH = 32, 4
FEW_ROWS = 4


def cases(shapes: str) -> Iterator[Case]:
    """Yield every case of ``shapes``: "all", "main", "odd", "few" or "tiny"."""
    rng = torch.Generator().manual_seed(0)
    for m, k, n in SETS[shapes]:
        dense = torch.randint(1, 128, (n, k), generator=rng, dtype=torch.int8)
        for pattern, shared in PATTERNS.items():
            for sparsity in SPARSITIES:
                weight = masked(dense, 1 - sparsity, shared, 1)
                yield linear(m, weight, f"{pattern} {sparsity:.0%}")
        for sparsity in SPARSITIES:
            if n % BLOCK_OUTPUTS == 0 and k % BLOCK_DEPTH == 0:
                name = f"block {BLOCK_OUTPUTS}x{BLOCK_DEPTH} {sparsity:.0%}"
                yield linear(m, blocks(dense, 1 - sparsity), name)
        for keep, of in N_OF_M:
            if k % of == 0:
                yield linear(m, n_of_m(n, k, keep, of, 1), f"{keep}:{of}")


def blocks(dense: Tensor, density: float) -> Tensor:
    """``dense`` with all but a ``density`` of its blocks 0."""
    rng = torch.Generator().manual_seed(1)
    n, k = dense.shape
    keep = torch.rand(n // BLOCK_OUTPUTS, k // BLOCK_DEPTH, generator=rng) < density
    return dense * keep.repeat_interleave(BLOCK_OUTPUTS, 0).repeat_interleave(BLOCK_DEPTH, 1)


def questions(shapes: str) -> Iterator[Question]:
    """Yield what ``--breakeven`` asks: each pattern and shape."""
    for pattern, shared in PATTERNS.items():
        for m, k, n in SETS[shapes]:
            yield question(m, k, n, pattern, shared)


def question(m: int, k: int, n: int, pattern: str, shared: int) -> Question:
    """From how many zeros on the sparse product beats our dense int8 one, and torch's fp32."""
    rng = torch.Generator().manual_seed(0)
    x, full = torch.randn(m, k, generator=rng), torch.randn(n, k, generator=rng)
    codes = torch.randint(1, 128, (n, k), generator=rng, dtype=torch.int8)
    packed, scale = ops.int8_pack(codes), torch.rand(n, generator=rng) / k**0.5

    def sparse(share: float) -> Call:
        own = ops.sparse_pack(masked(codes, 1 - share, shared, 1))
        return lambda: ops.int8_linear(x, own, scale)

    return Question(
        f"{pattern} int8 {m}x{k}x{n}",
        sparse,
        {
            "pyops dense": lambda: ops.int8_linear(x, packed, scale),
            "torch": lambda: F.linear(x, full),
        },
    )


def linear(m: int, quantized: Tensor, pattern: str) -> Case:
    """fp32 rows to fp32 with bias; activations quantized per row. The variant packs all zeros.

    A few rows read weights that no cache holds, sparse and dense, as in a net larger than caches.
    """
    n, k = quantized.shape
    rng = torch.Generator().manual_seed(0)
    x, bias = torch.randn(m, k, generator=rng), torch.randn(n, generator=rng)
    scale = torch.rand(n, generator=rng) / k**0.5
    weight = quantized.float() * scale[:, None]

    def call_of(packed: Tensor) -> Call:
        if m > FEW_ROWS:
            return lambda: ops.int8_linear(x, packed, scale, bias)
        return rotate(packed, lambda copy: ops.int8_linear(x, copy, scale, bias))

    def make_ours() -> Call:
        return call_of(ops.sparse_pack(quantized))

    def make_dense() -> Call:
        return call_of(ops.int8_pack(quantized))

    def check_ours(result: Tensor) -> None:
        rows, row_scale = quantize_rows(x)
        expect_equal(result, exact_product(rows, quantized).float() * row_scale * scale + bias)

    entries = int((quantized != 0).sum())
    return Case(
        kind="sparse_linear",
        op=OP,
        kernel="",
        name=f"{pattern} {m}x{k}x{n}",
        operations=2.0 * m * entries,
        bytes_moved=4.0 * m * (k + n) + 3.0 * entries,
        make_ours=make_ours,
        check_ours=check_ours,
        check_peer=lambda result: expect_close(result, x.double() @ weight.double().T + bias),
        tensors={"x": x, "weight": weight, "bias": bias},
        variants={"dense int8": make_dense},
    )
