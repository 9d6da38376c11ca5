"""Training steps of MLPs with masked weights: ``masked_matmul`` against the dense product."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from case import Call, Case, WrongResultError, sqnr_db
from masked_steps import gradient, module_step, parameters
from torch import Tensor

from pyops import ops

# Rows, width, layers, sparsity.
Shape = tuple[int, int, int, float]
SHAPES: tuple[Shape, ...] = (
    (256, 1024, 3, 0.9),
    (64, 1024, 3, 0.9),
    (32, 1024, 3, 0.9),
    (256, 1024, 3, 0.95),
    (256, 1024, 3, 0.8),
    (256, 1024, 3, 0.45),
    (256, 256, 3, 0.9),
    (1024, 2048, 2, 0.9),
)
ODD: tuple[Shape, ...] = ((100, 700, 2, 0.9), (33, 1001, 2, 0.9))
# The limits of masked_matmul_plan, from both sides.
SMALL: tuple[Shape, ...] = (
    (34, 256, 2, 0.9),
    (30, 256, 2, 0.9),
    (105, 256, 2, 0.6),
    (100, 256, 2, 0.6),
    (256, 256, 2, 0.51),
    (256, 256, 2, 0.49),
    (256, 255, 2, 0.9),
)
FEW: tuple[Shape, ...] = ((34, 1024, 3, 0.9), (16, 1024, 3, 0.9))
TINY: tuple[Shape, ...] = ((5, 40, 2, 0.9), (40, 260, 2, 0.9))
SETS = {"main": SHAPES, "odd": ODD, "small": SMALL, "few": FEW, "tiny": TINY}
# Steps of several layers have no simple bound: a product's is tested (tests/ops). A ReLU whose
# input rounds to the other side of 0 changes a gradient by more than rounding.
LEAST_SQNR_DB = 80.0


def cases(shapes: str) -> Iterator[Case]:
    """Yield every case of ``shapes``: "all", or a key of ``SETS``."""
    chosen = sum(SETS.values(), ()) if shapes == "all" else SETS[shapes]
    for shape in chosen:
        yield step(shape, optimizer=False)
        yield step(shape, optimizer=True)
        yield step(shape, optimizer=True, modules=True)


def step(shape: Shape, optimizer: bool, modules: bool = False) -> Case:
    """Forward and backward of the layers with ReLU between them, and an optimizer's step.

    ``modules``: ours are ``MaskedLinear`` modules in an ordinary loop, in place of the op.
    """
    rows, width, layers, sparsity = shape
    rng = torch.Generator().manual_seed(1)
    tensors = parameters(width, layers, sparsity)
    tensors["x"] = torch.randn(rows, width, generator=rng)
    tensors["target"] = torch.randn(rows, width, generator=rng)
    states = [ops.SparsePattern() for _ in range(layers)]

    def product(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor, layer: int) -> Tensor:
        return ops.masked_matmul(x, weight, mask, bias, state=states[layer])

    def make_ours() -> Call:
        return module_step(tensors) if modules else gradient(tensors, product, optimizer)

    kept = sum(int(tensors[f"mask{i}"].sum()) for i in range(layers))
    what = f"{'MaskedLinear ' * modules}step{' with SGD' * optimizer}"
    # Of the first layer x has no gradient.
    products = 3 * kept - int(tensors["mask0"].sum())
    return Case(
        kind="masked",
        op="masked_matmul",
        peak="fma_zmm",
        name=f"{what} {sparsity:.0%} {rows}x{width}x{layers}",
        operations=2.0 * rows * products,
        # Gradients are dense, and the optimizer reads and writes weights, momenta and gradients.
        bytes_moved=4.0 * layers * width * width * (6 if optimizer else 1) + 6.0 * products,
        make_ours=make_ours,
        check_ours=lambda result: check(result, tensors),
        check_peer=lambda result: check(result, tensors),
        tensors=tensors,
    )


def check(result: Tensor, tensors: dict[str, Tensor]) -> None:
    """Raise WrongResultError where the first weight's gradient is not that of float64."""
    with torch.inference_mode(False):
        exact = gradient(
            {k: v if k.startswith("mask") else v.double() for k, v in tensors.items()},
            lambda x, weight, mask, bias, _: F.linear(x, torch.where(mask, weight, 0.0), bias),
            optimizer=False,
        )()
    if bool((result[~tensors["mask0"]] != 0).any()):
        raise WrongResultError("has a gradient where the mask leaves no weight")
    if (quality := sqnr_db(result, exact)) < LEAST_SQNR_DB:
        raise WrongResultError(f"SQNR is {quality:.1f} dB, expected at least {LEAST_SQNR_DB} dB")
