"""``sparsify``: pruned models on sparse kernels, layer by layer where they are the faster ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .fuse import fuse
from .nn.packed_module import PackedModule
from .nn.packed_weight import WeightOnlyInt8Weight
from .nn.record import get_record, set_record
from .nn.sparse_codes import SparseCodes
from .ops.sparse_cost import pays, why_dense
from .prune.layers import masked_layers
from .prune.unmask import unmask
from .quantize.quantize import check_model, quantize
from .quantize.select import Patterns


def sparsify(
    model: nn.Module,
    *,
    dtype: torch.dtype | str | None = None,
    calibration: Iterable[Any] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
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
    of layers left dense what sparse kernels would take. Any pattern is taken as it is. What is not
    multiplied does not spread: an infinity or NaN in a layer's input reaches the outputs that have
    an entry for it, and maybe others.

    Args:
        model: any ``nn.Module``, pruned by ``pyops.prune`` or otherwise. It is not changed.
        dtype: float32 or bfloat16: what weights and values between layers become. None: the
            model's own. "int8": ``pyops.quantize``, with sparse kernels where they are estimated
            to be faster than dense int8 ones; the same numbers come out of either. Without
            ``calibration`` each layer runs by itself (``quantize(fuse=False)``).
        calibration, forward: as for ``pyops.quantize``; for "int8" alone.
        include, exclude, strict, example_inputs: as for ``pyops.fuse``, or ``pyops.quantize``.

    Returns:
        A converted copy, for inference.

    Raises:
        TypeError, ValueError: as ``pyops.fuse``, or ``pyops.quantize``.
    """
    check_model(model, False, "sparsify")
    options = {
        "include": include,
        "exclude": exclude,
        "strict": strict,
        "example_inputs": example_inputs,
    }
    codes = dtype in ("int8", torch.int8)
    if isinstance(dtype, str) and not codes:
        raise ValueError(f"sparsify: dtype must be a float dtype or 'int8', but is {dtype!r}")
    for name, value in (("calibration", calibration), ("forward", forward)):
        if value is not None and not codes:
            raise ValueError(f"sparsify: {name}= goes with dtype='int8', but dtype is {dtype}")
    plain = unmask(model) if list(masked_layers(model)) else model
    if codes:
        # Calls that hold several layers quantized row by row take dense weights alone.
        joined = calibration is not None
        made = quantize(plain, calibration=calibration, forward=forward, fuse=joined, **options)
        return _hold_sparse(made)
    assert not isinstance(dtype, str)
    return fuse(plain, dtype=dtype, algorithm="sparse", **options)


def _hold_sparse(model: nn.Module) -> nn.Module:
    """Packs the int8 weights sparse whose zeros pay, and records why others stay dense."""
    shares: dict[int, float] = {}
    for layer in model.modules():
        packed = layer.packed if isinstance(layer, PackedModule) else None
        if not isinstance(packed, SparseCodes) or isinstance(packed, WeightOnlyInt8Weight):
            continue
        if id(packed) not in shares:
            shares[id(packed)] = packed.sparse_share()
            if pays(shares[id(packed)]):
                packed.hold_sparse()
        record = get_record(layer)
        if not packed.sparse and record is not None:
            told = why_dense(packed.zeros(), shares[id(packed)])
            set_record(layer, replace(record, reason=f"{record.reason}; {told}"))
    return model
