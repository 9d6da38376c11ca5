"""all-MiniLM-L6-v2, the whole encoder: ``pyops.quantize(model)`` against torch in eager mode."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from case import Call, Case, UnavailableError, WrongResultError
from torch import Tensor, nn

import pyops
from pyops.testing.models import minilm, similarity
from pyops.testing.models.packages import MissingPackageError

SHAPES = ((1, 16), (1, 128), (8, 128))
TINY = ((1, 4), (2, 5))
LEAST_COSINE_OURS = 0.99
LEAST_COSINE_PEER = 0.85


def cases(shapes: str) -> Iterator[Case]:
    """Yield one case per (batch, tokens).

    Raises:
        UnavailableError: the package with the weights is not installed.
    """
    try:
        model = minilm.load_model()
    except MissingPackageError as error:
        raise UnavailableError(str(error)) from error
    for batch, tokens in TINY if shapes == "tiny" else SHAPES:
        yield encoder(model, batch, tokens)


def encoder(model: nn.Module, batch: int, tokens: int) -> Case:
    """``[batch, tokens]`` random words without padding; operations are those of the Linears."""
    inputs = minilm.random_batch(batch, tokens)
    with torch.inference_mode():
        exact = model(*inputs)

    def make_ours() -> Call:
        quantized = pyops.quantize(model)
        return lambda: quantized(*inputs)

    def check(result: Tensor, least: float) -> None:
        mean, _ = similarity.cosines(result, exact)
        if not mean >= least:
            raise WrongResultError(f"mean cosine to fp32 is {mean:.4f}, expected {least}")

    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    weights = sum(module.weight.numel() for module in linears)
    return Case(
        kind="model",
        op="int8_gemm",
        name=f"minilm {batch}x{tokens}",
        operations=2.0 * batch * tokens * weights,
        bytes_moved=float(weights),
        make_ours=make_ours,
        check_ours=lambda result: check(result, LEAST_COSINE_OURS),
        check_peer=lambda result: check(result, LEAST_COSINE_PEER),
        model=model,
        inputs=inputs,
    )
