"""all-MiniLM-L6-v2 with zeros in all Linears of its layers: float and int8, our kernels and peers.

Pruned at once by magnitude, which decides the time; ``pruned_quality.py`` says what is left of the
model after other criteria and fine-tuning. Operations are those of the dense Linears.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from case import Call, Case, UnavailableError, WrongResultError
from torch import Tensor, nn

import pyops
from models.minilm import SHAPES, TINY
from pyops.testing.models import minilm, similarity
from pyops.testing.models.packages import MissingPackageError

SLOW_PEERS = True
SPARSITIES, TINY_SPARSITIES = (0.8, 0.9), (0.9,)
LEAST_COSINE = {"fp32": 0.99999, "int8": 0.98}
LEAST_COSINE_PEER = {"fp32": 0.9999, "int8": 0.75}
KINDS = {"fp32": "model pruned", "int8": "model pruned int8"}
RIVALS = {
    "fp32": {
        "sparse peers": ("deepsparse",),
        "dense peers": ("torch fp32", "onnxruntime fp32", "pyops dense"),
    },
    "int8": {"dense int8 peers": ("pyops dense int8", "onnxruntime int8", "openvino int8")},
}


def cases(shapes: str) -> Iterator[Case]:
    """Yield one case per sparsity, (batch, tokens) and precision.

    Raises:
        UnavailableError: the package with the weights is not installed.
    """
    try:
        dense = minilm.load_model()
    except MissingPackageError as error:
        raise UnavailableError(str(error)) from error
    tiny = shapes == "tiny"
    for sparsity in TINY_SPARSITIES if tiny else SPARSITIES:
        model = pruned(dense, sparsity)
        for batch, tokens in TINY if tiny else SHAPES:
            for precision in RIVALS:
                inputs = minilm.random_batch(batch, tokens)
                yield encoder(model, inputs, precision, f"pruned_minilm {sparsity:.0%}")


def pruned(dense: nn.Module, sparsity: float) -> nn.Module:
    """Return a copy without the smallest weights of each Linear."""
    masked = pyops.prune(dense, sparsity, include=nn.Linear)
    return pyops.prune.unmask(masked, inplace=True).eval()


def encoder(model: nn.Module, inputs: tuple[Tensor, ...], precision: str, name: str) -> Case:
    """The pruned model on ids and mask ``[batch, tokens]``, in "fp32" or "int8"."""
    batch, tokens = inputs[0].shape
    with torch.inference_mode():
        exact = model(*inputs)

    def make_ours() -> Call:
        dtype = "int8" if precision == "int8" else None
        fast = pyops.sparsify(model, dtype=dtype)
        return lambda: fast(*inputs)

    def check(result: Tensor, least: float) -> None:
        mean, _ = similarity.cosines(result, exact)
        if not mean >= least:
            raise WrongResultError(f"mean cosine to fp32 is {mean:.5f}, expected {least}")

    def quality(result: Tensor) -> dict[str, float]:
        return dict(zip(("cosine", "least"), similarity.cosines(result, exact), strict=True))

    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    return Case(
        kind=KINDS[precision],
        name=f"{name} {precision} {batch}x{tokens}",
        operations=2.0 * batch * tokens * weights,
        bytes_moved=float(weights),
        make_ours=make_ours,
        check_ours=lambda result: check(result, LEAST_COSINE[precision]),
        check_peer=lambda result: check(result, LEAST_COSINE_PEER[precision]),
        quality=quality,
        model=model,
        inputs=inputs,
        calibration=None if precision == "fp32" else lambda: (inputs,),
        rivals=RIVALS[precision],
    )
