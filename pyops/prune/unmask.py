"""``unmask``: pruned layers as plain ones again."""

from __future__ import annotations

from torch import nn

from ..nn.record import Record, get_record, set_record
from ..quantize.convert import float_bytes, put
from ..quantize.copying import copy_model
from .layers import masked_layers


def unmask(model: nn.Module, *, inplace: bool = False) -> nn.Module:
    """Replaces masked layers by plain ones, whose removed weights are 0 from now on only by value.

    Args:
        model: a model with layers that ``prune`` or ``Pruner`` made. It is not changed: the result
            shares no tensor with it.
        inplace: change ``model`` itself; parameters stay the same objects.

    Returns:
        The copy, or ``model`` with ``inplace=True``. Tied weights stay tied.

    Raises:
        TypeError: not an ``nn.Module``, or one that cannot be copied.
        ValueError: it holds no masked layer, or with ``inplace=True`` is one itself.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"unmask takes an nn.Module, but got {type(model).__name__}")
    found = list(masked_layers(model))
    if not found:
        raise ValueError(f"unmask: {type(model).__name__} holds no masked layer")
    if inplace and found[0][0][0] == "":
        raise ValueError(
            f"inplace=True cannot turn the {type(model).__name__} itself into another object: "
            "use the returned copy (inplace=False)"
        )
    target = model if inplace else copy_model(model, trainable=True)
    for paths, layer in list(masked_layers(target)):
        old = get_record(layer)
        new = layer.to_float()
        how = old.reason if old is not None else "built as a masked layer"
        reason = f"{how}; {100 * layer.sparsity:.3g} % of its weights were 0 when it was unmasked"
        before = type(new).__name__
        set_record(
            new, Record(before, reason, float_bytes(new) if old is None else old.bytes_before)
        )
        target = put(target, paths, new)
    return target
