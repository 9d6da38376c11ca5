"""Containers of torch that read the weights of their Linears instead of calling them."""

from __future__ import annotations

from torch import nn

from .packed_module import PackedModule

MHA_REASON = "nn.MultiheadAttention reads its weights and calls no layer"


def reads_weights(module: nn.Module) -> str | None:
    """Why no layer inside this container can be replaced; None for all other modules."""
    return MHA_REASON if isinstance(module, nn.MultiheadAttention) else None


def disable_fast_paths(model: nn.Module) -> None:
    """Makes ``nn.TransformerEncoderLayer`` and ``nn.TransformerEncoder`` call our layers.

    In eval mode both may hand the float weights of all their parts to one fused op, which bypasses
    ``linear1`` and ``linear2``. The layer does so only where ``activation_relu_or_gelu`` says that
    its activation is one of the two that the op knows; nothing else reads that attribute, so 0
    ("another one") switches this path off and changes no result. The encoder converts a padded
    batch to a nested tensor for that op only where ``use_nested_tensor`` is set; the layers'
    ordinary path cannot take such a tensor, so it goes off too. (Padded positions of the output
    are then what the layers compute and not zeros, as in torch without its fast path.)
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and _holds_ours(module):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder) and _holds_ours(module):
            module.use_nested_tensor = False


def _holds_ours(module: nn.Module) -> bool:
    return any(isinstance(child, PackedModule) for child in module.modules())
