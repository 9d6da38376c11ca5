"""``sparse_linear``: float weights of a share of zeros, against the dense products."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from breakeven import Question
from case import Call, Case, WrongResultError, sqnr_db
from torch import Tensor

from pyops import ops
from pyops.testing.cases.sparse_gemm import LinearCase, masked

# M, K, N.
SHAPES = ((128, 768, 768), (128, 768, 3072), (128, 3072, 768), (512, 2048, 2048), (256, 4096, 4096))
ODD = ((7, 1000, 1001), (33, 257, 129), (127, 767, 3071))
FEW = ((1, 768, 3072), (1, 4096, 11008), (4, 4096, 11008), (16, 768, 3072), (32, 768, 768))
TINY = ((3, 37, 19), (70, 64, 64))
SETS = {"all": SHAPES + ODD + FEW, "main": SHAPES, "odd": ODD, "few": FEW, "tiny": TINY}
SPARSITIES = (0.7, 0.8, 0.9, 0.95)
# How many outputs share a pattern.
PATTERNS = {"unstructured": 1, "block 32x1": 32}
# What is pruned together, of bfloat16: pairs of k.
BF16_BLOCK = (32, 2)
PEER_SQNR_DB = {torch.float32: 60.0, torch.bfloat16: 40.0}


def cases(shapes: str) -> Iterator[Case]:
    """Yield every case of ``shapes``: "all", "main", "odd", "few" or "tiny"."""
    for pattern, shared in PATTERNS.items():
        for m, k, n in SETS[shapes]:
            for sparsity in SPARSITIES:
                yield linear(m, k, n, sparsity, pattern, shared)
    for m, k, n in SETS[shapes]:
        for sparsity in SPARSITIES:
            yield bf16_blocks(m, k, n, sparsity)


def questions(shapes: str) -> Iterator[Question]:
    """Yield what ``--breakeven`` asks: each pattern, dtype and shape."""
    for pattern, shared in PATTERNS.items():
        for dtype in (torch.float32, torch.bfloat16):
            for m, k, n in SETS[shapes]:
                yield question(m, k, n, dtype, pattern, shared)


def question(m: int, k: int, n: int, dtype: torch.dtype, pattern: str, shared: int) -> Question:
    """From how many zeros on the sparse product beats our dense one, and torch's."""
    rng = torch.Generator().manual_seed(0)
    x, weight = torch.randn(m, k, generator=rng).to(dtype), torch.randn(n, k, generator=rng)
    full = weight.to(dtype)
    packed, image = ops.conv_relu_pack(full[..., None, None]), x[..., None, None]

    def sparse(share: float) -> Call:
        own = ops.sparse_pack(masked(weight, 1 - share, shared, 1).to(dtype))
        return lambda: ops.sparse_linear(x, own, n)

    name = str(dtype).removeprefix("torch.")
    return Question(
        f"{pattern} {name} {m}x{k}x{n}",
        sparse,
        {
            "pyops dense": lambda: ops.conv_relu(image, packed, [n, k, 1, 1]),
            "torch": lambda: F.linear(x, full),
        },
    )


def linear(m: int, k: int, n: int, sparsity: float, pattern: str, shared: int) -> Case:
    """A Linear with a bias; peers multiply by all of the weight, or have a format of their own."""
    rng = torch.Generator().manual_seed(0)
    x, bias = torch.randn(m, k, generator=rng), torch.randn(n, generator=rng)
    weight = masked(torch.randn(n, k, generator=rng), 1 - sparsity, shared, 1)
    return case_of(x, weight, bias, f"{pattern} {sparsity:.0%} {m}x{k}x{n}")


def bf16_blocks(m: int, k: int, n: int, sparsity: float) -> Case:
    """The same in bfloat16, in blocks that its products take."""
    rng = torch.Generator().manual_seed(0)
    x, bias = torch.randn(m, k, generator=rng).bfloat16(), torch.randn(n, generator=rng)
    shared, depth = BF16_BLOCK
    kept = masked(torch.ones(n, -(-k // depth)), 1 - sparsity, shared, 1)
    weight = torch.randn(n, k, generator=rng) * kept.repeat_interleave(depth, 1)[:, :k]
    name = f"bf16 block {shared}x{depth} {sparsity:.0%} {m}x{k}x{n}"
    return case_of(x, weight.bfloat16(), bias, name)


def case_of(x: Tensor, weight: Tensor, bias: Tensor, name: str) -> Case:
    """By the kernel that ``sparse_pack`` chooses; peers of the same dtype."""
    n = weight.shape[0]

    def make_ours() -> Call:
        packed = ops.sparse_pack(weight)
        return lambda: ops.sparse_linear(x, packed, n, bias=bias)

    exact, bound = LinearCase(x, weight, bias).exact()
    entries = int((weight != 0).sum())
    return Case(
        kind="sparse_linear" if x.dtype == torch.float32 else "sparse_linear bf16",
        op="sparse_gemm",
        peak="fma_zmm" if x.dtype == torch.float32 else "vdpbf16ps_zmm",
        kernel="",
        name=name,
        operations=2.0 * x.shape[0] * entries,
        bytes_moved=1.0 * x.itemsize * (x.numel() + x.shape[0] * n) + (x.itemsize + 2) * entries,
        make_ours=make_ours,
        check_ours=lambda result: expect_within(result, exact, bound),
        check_peer=lambda result: expect_close(result, exact),
        tensors={"x": x, "weight": weight, "bias": bias},
        geometry={},
    )


def expect_within(result: Tensor, exact: Tensor, bound: Tensor) -> None:
    """Raise WrongResultError where the error is larger than its bound."""
    excess = (result.double() - exact).abs() / bound
    if not bool((excess <= 1).all()):
        raise WrongResultError(f"is off by {excess.max().item():.2f} times the bound")


def expect_close(result: Tensor, exact: Tensor) -> None:
    """Raise WrongResultError where the error is larger than the result's dtype explains."""
    if (quality := sqnr_db(result, exact)) < (least := PEER_SQNR_DB[result.dtype]):
        raise WrongResultError(f"SQNR is {quality:.1f} dB, expected at least {least} dB")
