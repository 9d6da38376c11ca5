"""Attention on rows: what an exported graph does to get from rows to heads and back, in one call.

``F.scaled_dot_product_attention`` takes ``[B, H, T, D]``. Models view the rows ``[B, T, H * D]`` of
each projection so, and the result as rows again. With few tokens those views take longer than the
products.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ..ops.attention_reference import heads_of
from .attention import slow_kernel, why_not
from .export_nodes import drop_unread
from .trace import argument


def attention_of_rows(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, head: int, scale: float, is_causal: bool
) -> Tensor:
    """``ops.attention_rows``, by torch's attention where that is faster; ``head``: its size."""
    if slow_kernel(q.dtype, q.shape[2] // k.shape[2] * q.shape[1]) is None:
        out: Tensor = torch.ops.pyops.attention_rows.default(q, k, v, mask, head, scale, is_causal)
        return out
    y = F.scaled_dot_product_attention(
        heads_of(q, head),
        heads_of(k, head),
        heads_of(v, head),
        attn_mask=mask,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return y.transpose(1, 2).flatten(2)


def attention_on_rows(graph: fx.Graph) -> None:
    """Replaces, in place, attention between views by ``attention_of_rows``.

    ``node.meta["val"]`` is there for every node: the types and sizes of its tensor.
    """
    for node in list(graph.nodes):
        if node.target is F.scaled_dot_product_attention:
            last = _rows_after(node)
            arguments = None if last is None else _arguments(node)
            if last is not None and arguments is not None:
                with graph.inserting_before(last):
                    new = graph.call_function(attention_of_rows, arguments)
                new.meta["val"] = last.meta["val"]
                last.replace_all_uses_with(new)
    drop_unread(graph)


def _arguments(node: fx.Node) -> tuple[Any, ...] | None:
    """Those of ``attention_of_rows``, if it takes this call."""
    heads: list[Any] = list(node.args[:3])
    rows = [_rows_before(one) for one in heads]
    if len(rows) < 3 or any(one is None for one in rows):
        return None
    q, k, v = (one.meta["val"] for one in heads)
    mask = argument(node, 3, "attn_mask", None)
    is_causal = argument(node, 5, "is_causal", False)
    gqa = argument(node, 7, "enable_gqa", False)
    scale = argument(node, 6, "scale", None)
    plain = isinstance(is_causal, bool) and isinstance(scale, (float, type(None)))
    plain = plain and isinstance(mask, (fx.Node, type(None)))
    if not plain or argument(node, 4, "dropout_p", 0.0) != 0 or q.device.type != "cpu":
        return None
    like = None if mask is None else mask.meta["val"]
    if why_not(q, k, v, like, is_causal, gqa, _known) is not None:
        return None
    return (*rows, mask, q.shape[3], q.shape[3] ** -0.5 if scale is None else scale, is_causal)


def _rows_before(node: Any) -> fx.Node | None:
    """x [B, T, H * D], if the node is ``x.view(B, T, H, D).transpose(1, 2)``."""
    view = _swapped(node)
    if view is None or _dims(view) != 4 or not _method(view, "view", "reshape"):
        return None
    x, heads = view.args[0], view.meta["val"].shape
    if not isinstance(x, fx.Node) or not all(isinstance(size, int) for size in heads[2:]):
        return None
    found = heads[2] * heads[3] > 0 and _like(x.meta["val"], (*heads[:2], heads[2] * heads[3]))
    return x if found else None


def _rows_after(node: fx.Node) -> fx.Node | None:
    """The last of the nodes that make rows of the heads and are read by nothing but each other."""
    if _dims(node) != 4:
        return None
    batch, heads, tokens, size = node.meta["val"].shape
    if not isinstance(heads, int) or not isinstance(size, int):
        return None
    swap = next(iter(node.users), None)
    if len(node.users) != 1 or _swapped(swap) is not node:
        return None
    last: Any = swap
    rows = None
    while len(last.users) == 1:
        last = next(iter(last.users))
        if not _method(last, "contiguous", "reshape", "view", "flatten"):
            break
        if _like(last.meta["val"], (batch, tokens, heads * size)):
            rows = last
    return rows


def _swapped(node: Any) -> fx.Node | None:
    """x, if the node is x [., A, B, .] as [., B, A, .]."""
    if _dims(node) != 4:
        return None
    x, *axes = node.args
    swap = _method(node, "transpose") and axes in ([1, 2], [2, 1], [-2, -3], [-3, -2])
    if not swap and not (_method(node, "permute") and axes == [[0, 2, 1, 3]]):
        return None
    return x if isinstance(x, fx.Node) else None


def _dims(node: Any) -> int:
    """Of a node that is one tensor; -1 for all others."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dim() if isinstance(value, Tensor) else -1


def _method(node: fx.Node, *names: str) -> bool:
    return node.op == "call_method" and node.target in names


def _like(tensor: Tensor, sizes: tuple[Any, ...] | torch.Size) -> bool:
    known = zip(tensor.shape, sizes, strict=False)
    return tensor.dim() == len(sizes) and all(_known(a, b) for a, b in known)


def _known(a: Any, b: Any) -> bool:
    """Whether two sizes are one for all inputs of the graph."""
    return bool(statically_known_true(a == b))
