"""What the benches of int8 products share: shapes, exact results, comparisons."""

from __future__ import annotations

import torch
from case import WrongResultError, sqnr_db
from torch import Tensor

# (M, K, N): one token to many, square and skewed, and convolutions written as products.
SHAPES = (
    (1, 4096, 4096),
    (1, 4096, 11008),
    (16, 4096, 4096),
    (1, 384, 384),
    (32, 384, 1536),
    (128, 384, 384),
    (128, 384, 1536),
    (128, 1536, 384),
    (128, 768, 768),
    (128, 768, 3072),
    (128, 3072, 768),
    (512, 768, 3072),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (3136, 576, 64),
    (784, 1152, 128),
    (196, 2304, 256),
    (49, 4608, 512),
)
# Sizes that fit no tile: what edges cost. N odd, K no multiple of 4, M between the tiles' rows.
ODD = (
    (1, 383, 385),
    (7, 1000, 1001),
    (33, 257, 129),
    (127, 767, 3071),
    *((m, 768, 769) for m in (5, 7, 17, 33)),
    *((m, 770, 768) for m in (5, 7, 17, 33)),
)
# Few rows of a small layer, where a call costs as much as its product.
FEW = tuple((m, 384, 384) for m in range(1, 9))
# Where int8 stops to pay: pyops/quantize/break_even.py.
SMALL = tuple((m, size, size) for size in (32, 48, 64) for m in (1, 64, 1024))
TINY = ((1, 16, 16), (3, 37, 19), (20, 64, 64))
SETS = {
    "all": SHAPES + ODD + FEW,
    "main": SHAPES,
    "odd": ODD,
    "few": FEW,
    "small": SMALL,
    "tiny": TINY,
}
# torch's int8 peers quantize the whole activation with one scale; far below this is a bug.
PEER_SQNR_DB = 20.0
TORCH_AO = ("torch.ao x86", "torch.ao onednn", "torch.ao fbgemm")


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values and fp32 scales ``[m, 1]`` by the formula, independent of our op."""
    absmax = x.abs().amax(dim=1, keepdim=True)
    scale = torch.where(absmax > 0, absmax / 127, torch.ones_like(absmax))
    return (x * (1 / scale)).round().clamp(-127, 127), scale


def exact_product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b.T`` of integers: exact in fp64, whose 53 bits hold any sum of ours."""
    return a.double() @ b.double().T


def expect_equal(result: Tensor, expected: Tensor) -> None:
    """Raise WrongResultError unless the tensors are equal bit for bit."""
    expect_like(result, expected)
    wrong = (result != expected).nonzero()
    if len(wrong):
        row, column = wrong[0].tolist()
        raise WrongResultError(
            f"differs in {len(wrong)} of {result.numel()} places, first at ({row}, {column}): "
            f"{result[row, column].item()}, expected {expected[row, column].item()}"
        )


def expect_like(result: Tensor, expected: Tensor) -> None:
    """Raise WrongResultError unless dtype and shape are equal."""
    if result.dtype != expected.dtype or result.shape != expected.shape:
        raise WrongResultError(
            f"is {result.dtype} {list(result.shape)}, expected {expected.dtype} "
            f"{list(expected.shape)}"
        )


def expect_within_steps(result: Tensor, expected: Tensor, steps: int) -> None:
    """Raise WrongResultError when 8-bit codes are more than ``steps`` apart anywhere."""
    expect_like(result, expected)
    apart = int((result.int() - expected.int()).abs().max())
    if apart > steps:
        raise WrongResultError(f"is up to {apart} steps off, expected at most {steps}")


def expect_close(result: Tensor, exact: Tensor) -> None:
    """Raise WrongResultError when the error is larger than int8 explains."""
    if (quality := sqnr_db(result, exact)) < PEER_SQNR_DB:
        raise WrongResultError(f"SQNR is {quality:.1f} dB, expected at least {PEER_SQNR_DB} dB")
