"""all-MiniLM-L6-v2, the whole encoder, after ``pyops.quantize`` with an example of its inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from case import Call, Case, UnavailableError, WrongResultError
from compiling import compiled
from products import TORCH_AO
from torch import Tensor, nn

import pyops
from pyops.testing.models import minilm, similarity
from pyops.testing.models.packages import MissingPackageError

SHAPES = ((1, 16), (1, 128), (8, 128), (32, 128))
TINY = ((1, 4), (2, 5))
CALIBRATION_TEXTS = 64
LEAST_COSINE_OURS = 0.99
LEAST_COSINE_PEER = 0.75
RIVALS = {
    "torch and ONNX Runtime": (
        "torch.compile bf16",
        *TORCH_AO,
        "torchao compiled",
        "onnxruntime int8",
    ),
    "OpenVINO": ("openvino int8",),
    "OpenVINO with bf16": ("openvino int8 bf16",),
}


def cases(shapes: str) -> Iterator[Case]:
    """Yield one case per (batch, tokens).

    Raises:
        UnavailableError: the package with the weights is not installed.
    """
    try:
        model, tokenizer = minilm.load_model(), minilm.load_tokenizer()
    except MissingPackageError as error:
        raise UnavailableError(str(error)) from error

    def calibration() -> tuple[tuple[Tensor, ...], ...]:
        texts = similarity.news_sentences(CALIBRATION_TEXTS)
        return tuple(minilm.tokenize(tokenizer, [text]) for text in texts)

    for dtype in (None, torch.bfloat16):
        for batch, tokens in TINY if shapes == "tiny" else SHAPES:
            case = encoder(model, minilm.random_batch(batch, tokens), dtype)
            yield dataclasses.replace(case, calibration=calibration)


def encoder(model: nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype | None = None) -> Case:
    """The model on ids and mask ``[batch, tokens]``; operations are those of the Linears.

    ``dtype``: of the values between our int8 layers; the peers are the same.
    """
    batch, tokens = inputs[0].shape
    with torch.inference_mode():
        exact = model(*inputs)

    def make_ours() -> Call:
        quantized = pyops.quantize(model, example_inputs=inputs, never_slower=False, dtype=dtype)
        return lambda: quantized(*inputs)

    def check(result: Tensor, least: float) -> None:
        mean, _ = similarity.cosines(result, exact)
        if not mean >= least:
            raise WrongResultError(f"mean cosine to fp32 is {mean:.4f}, expected {least}")

    def quality(result: Tensor) -> dict[str, float]:
        return dict(zip(("cosine", "least"), similarity.cosines(result, exact), strict=True))

    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    weights = [pyops.ops.quantize_weight(module.weight.detach())[0] for module in linears]
    return Case(
        kind="model",
        op="int8_gemm",
        name=f"minilm{'' if dtype is None else ' bf16'} {batch}x{tokens}",
        operations=2.0 * batch * tokens * sum(weight.numel() for weight in weights),
        bytes_moved=float(sum(weight.numel() for weight in weights)),
        make_ours=make_ours,
        variants={"pyops compiled": lambda: compiled(pyops.quantize(model, dtype=dtype), inputs)},
        check_ours=lambda result: check(result, LEAST_COSINE_OURS),
        check_peer=lambda result: check(result, LEAST_COSINE_PEER),
        quality=quality,
        model=model,
        inputs=inputs,
        products=tuple((weight, batch * tokens) for weight in weights),
        rivals=RIVALS,
    )
