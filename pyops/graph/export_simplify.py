"""What a model computes step by step or over and over, in fewer calls.

RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467) is ``x * rsqrt(mean(x^2) + eps) * weight`` over
the last dimension: one call of ``F.rms_norm``. Models in half precision convert ``x`` to float32
first and the result back, as ``F.rms_norm`` does inside; the two round at other places.

A mask of booleans becomes numbers in every call of ``F.scaled_dot_product_attention``. Where
several layers read one mask, that is done once.
"""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx


def recognise_rms_norms(graph: fx.Graph) -> None:
    """Replaces, in place, what computes the RMSNorm of a node with a weight from a part."""
    for node in list(graph.nodes):
        if node.target is operator.mul:
            for weight, scaled in (node.args, node.args[::-1]):
                found = _source(weight, scaled)
                if found is not None:
                    x, eps = found
                    with graph.inserting_before(node):
                        size = (weight.meta["val"].shape[0],)
                        new = graph.call_function(F.rms_norm, (x, size, weight, eps))
                    new.meta["val"] = node.meta["val"]
                    node.replace_all_uses_with(new)
                    break
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


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


def _source(weight: Any, scaled: Any) -> tuple[fx.Node, float] | None:
    """x and eps, if ``scaled`` is x over its root mean square and ``weight`` fits them."""
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    inner = _without_cast(scaled)
    if not _calls(inner, operator.mul):
        return None
    for x, root in (inner.args, inner.args[::-1]):
        if not _calls(root, torch.rsqrt) or not _calls(root.args[0], operator.add):
            continue
        mean, eps = root.args[0].args
        if not isinstance(eps, float) or not _means_squares(mean, x):
            continue
        source = _without_cast(x)
        like, known = weight.meta["val"], source.meta["val"]
        if (*like.shape, like.dtype) == (known.shape[-1], known.dtype):
            return source, eps
    return None


def _means_squares(mean: Any, x: fx.Node) -> bool:
    method = isinstance(mean, fx.Node) and mean.op == "call_method" and mean.target == "mean"
    if not method or mean.args[1:] != ([-1], True) or mean.kwargs:
        return False
    square = mean.args[0]
    return _calls(square, operator.pow) and square.args == (x, 2)


def _calls(node: Any, function: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is function


def _without_cast(node: Any) -> Any:
    cast = isinstance(node, fx.Node) and node.op == "call_method" and node.target == "to"
    return node.args[0] if cast and len(node.args) == 2 else node
