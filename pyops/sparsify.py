"""``sparsify``: pruned models on sparse kernels, layer by layer where they are the faster ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .fuse import fuse
from .prune.layers import masked_layers
from .prune.unmask import unmask
from .quantize.quantize import check_model
from .quantize.select import Patterns


def sparsify(
    model: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    strict: bool = False,
    example_inputs: Any = None,
) -> nn.Module:
    """Runs a pruned model on kernels that hold and multiply only what is not zero.

    The same as ``pyops.fuse(model, algorithm="sparse")``, of a model whose masked layers
    (``pyops.prune``) are plain ones again: batch norms are folded, what follows a layer runs in its
    call, and each ``nn.Conv2d``, ``nn.Conv1d`` and ``nn.Linear`` gets the kernels that are
    estimated to be faster for its share of zeros, its pattern and its shape
    (``pyops.ops.sparse_cost``). ``pyops.explain`` says which, how many zeros each weight has, and
    of layers left dense what sparse kernels would take. Any pattern is taken as it is.

    Args:
        model: any ``nn.Module``, pruned by ``pyops.prune`` or otherwise. It is not changed.
        dtype: float32 or bfloat16: what weights and values between layers become. None: the
            model's own.
        include, exclude, strict, example_inputs: as for ``pyops.fuse``.

    Returns:
        A converted copy, for inference.

    Raises:
        TypeError, ValueError: as ``pyops.fuse``.
    """
    check_model(model, False, "sparsify")
    plain = unmask(model) if any(True for _ in masked_layers(model)) else model
    return fuse(
        plain,
        dtype=dtype,
        include=include,
        exclude=exclude,
        strict=strict,
        example_inputs=example_inputs,
        algorithm="sparse",
    )
