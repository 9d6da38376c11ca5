"""Inputs to look at a convnet with where the caller gives none: noise of a size that it takes."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from .simple_code import CannotTraceError

# Of images, the usual ones first; of rows.
_SIZES = (224, 32, 64, 28, 299, 8, 16, 48, 96, 128, 160, 192, 256, 384, 512)
_LENGTHS = (16000, 1024, 256, 128, 64, 32, 16, 8, 512, 2048, 4096, 8000)
_BATCH = 2


def guess_inputs(model: nn.Module, bare: nn.Module) -> dict[str, Tensor]:
    """Noise for the model's only argument, as many channels as its first convolution takes.

    ``bare``: a copy of the model on the meta device, on which sizes are tried.

    Raises:
        CannotTraceError: it has another number of required arguments, or no size fits.
    """
    parameters = list(inspect.signature(type(model).forward).parameters.values())[1:]
    required = [p.name for p in parameters if p.default is p.empty]
    if len(required) != 1 or parameters[0].kind is not parameters[0].POSITIONAL_OR_KEYWORD:
        raise CannotTraceError(
            f"it takes {', '.join(required) or 'no tensor'}: give example_inputs="
        )
    first = next((m for m in model.modules() if type(m) in (nn.Conv1d, nn.Conv2d)), None)
    if first is None:
        raise CannotTraceError("it has no convolution to guess an input by: give example_inputs=")
    weight: Tensor = first.weight  # type: ignore[assignment]
    flat = type(first) is nn.Conv1d
    channels: int = first.in_channels  # type: ignore[assignment]
    for size in _LENGTHS if flat else _SIZES:
        shape = (_BATCH, channels, *[size] * (1 if flat else 2))
        if _takes(bare, torch.empty(shape, dtype=weight.dtype, device="meta")):
            noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            return {required[0]: noise.to(weight.device, weight.dtype)}
    raise CannotTraceError(
        f"it takes none of the sizes {_SIZES[0]}, {_SIZES[1]}, ... that were tried: "
        "give example_inputs="
    )


def _takes(bare: nn.Module, x: Tensor) -> bool:
    try:
        with torch.no_grad():
            bare(x)
    except Exception:  # whatever a forward raises
        return False
    return True
