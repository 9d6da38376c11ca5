"""What a model computes over and over, once.

A mask of booleans becomes numbers in every call of ``F.scaled_dot_product_attention``. Where
several layers read one mask, that is done once.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, fx


def convert_masks_once(graph: fx.Graph) -> None:
    """Converts, in place, masks of booleans that several attentions read, as those would do it."""
    readers: dict[tuple[fx.Node, torch.dtype], list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        if node.target is F.scaled_dot_product_attention and isinstance(mask, fx.Node):
            if mask.meta["val"].dtype == torch.bool:
                readers[mask, node.args[0].meta["val"].dtype].append(node)
    for (mask, dtype), nodes in readers.items():
        if len(nodes) > 1:
            with graph.inserting_after(mask):
                new = graph.call_function(_as_numbers, (mask, dtype))
            new.meta["val"] = mask.meta["val"].to(dtype)
            for node in nodes:
                node.replace_input_with(mask, new)


def _as_numbers(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where the mask is true, minus infinity elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -math.inf)
