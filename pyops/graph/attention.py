"""``F.scaled_dot_product_attention`` in a graph, by our attention op where that takes the call.

``fuse_attention(graph)`` retargets the calls; each of them decides when it runs, by ``why_torch``.
Where the types of all tensors are known, ``attention_rows.py`` takes the views around it as well.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from .. import isa
from ..ops.attention import attention, kernel_of
from ..ops.checks import FLOATS

# kDirectRows of csrc/cpu/attention/pack.h: there memory decides, and ours is faster.
_DIRECT_ROWS = 4


def fuse_attention(graph: fx.Graph) -> list[str]:
    """Lets every attention of ``graph`` run ``scaled_dot_product_attention`` of this module.

    Returns:
        the names of the nodes that do now. Those with dropout stay as they are.
    """
    fused = []
    for node in graph.nodes:
        if node.op != "call_function" or node.target is not F.scaled_dot_product_attention:
            continue
        dropout = node.args[4] if len(node.args) > 4 else node.kwargs.get("dropout_p", 0.0)
        if isinstance(dropout, (int, float)) and dropout == 0:
            node.target = scaled_dot_product_attention
            fused.append(node.name)
    return fused


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch's function of this name: by our op unless ``why_torch`` has a reason not to."""
    if why_torch(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa) is None:
        return attention(query, key, value, attn_mask, scale=scale, is_causal=is_causal)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attn_mask,
        dropout_p=dropout_p,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
    )


def why_torch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    enable_gqa: bool = False,
) -> str | None:
    """Why torch's attention runs such a call and not ours; None where ours does."""
    tensors = [t for t in (q, k, v, mask) if t is not None]
    if dropout_p != 0:
        return "dropout"
    if any(t.device.type != "cpu" for t in tensors):
        return f"tensors on {q.device.type}, ours is for the CPU"
    if torch.is_autocast_enabled("cpu"):
        return "autocast decides by function"
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return "an input requires grad, ours is for inference"
    return why_not(q, k, v, mask, is_causal, enable_gqa) or slower(q, k)


def why_not(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    enable_gqa: bool,
    same: Callable[[Any, Any], bool] = operator.eq,
) -> str | None:
    """Which type or size our op does not take. ``same``: whether two sizes are one."""
    return _shapes(q, k, v, enable_gqa, same) or _mask(q, k, mask, is_causal, same)


def _shapes(
    q: Tensor, k: Tensor, v: Tensor, enable_gqa: bool, same: Callable[[Any, Any], bool]
) -> str | None:
    if q.dtype not in FLOATS or not q.dtype == k.dtype == v.dtype:
        return f"dtypes {q.dtype}, {k.dtype}, {v.dtype}"
    if not q.dim() == k.dim() == v.dim() == 4:
        return "tensors that are not 4-D"
    pairs = (
        *zip(v.shape, k.shape, strict=True),
        (k.shape[0], q.shape[0]),
        (k.shape[3], q.shape[3]),
    )
    if not all(same(a, b) for a, b in pairs) or same(q.shape[3], 0):
        return f"shapes {list(q.shape)}, {list(k.shape)}, {list(v.shape)}"
    heads, kv_heads = q.shape[1], k.shape[1]
    if heads != kv_heads and not (enable_gqa and kv_heads and heads % kv_heads == 0):
        return f"{heads} heads on {kv_heads}"
    return None


def _mask(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    same: Callable[[Any, Any], bool],
) -> str | None:
    if mask is None:
        return None
    if is_causal:
        return "a mask together with is_causal"
    full = (*q.shape[:3], k.shape[2])
    sizes = zip(reversed(mask.shape), reversed(full), strict=False)
    fits = all(same(a, 1) or same(a, b) for a, b in sizes)
    if mask.dim() > 4 or not fits or mask.dtype not in (torch.bool, torch.float32, q.dtype):
        return f"a mask of {mask.dtype} {list(mask.shape)}"
    return None


# Between 12 heads of 16 x 16 x 32, where torch's float32 attention was the faster one, and of
# 128 x 128 x 32, where ours is on every level.
_FEW_PRODUCTS = 1 << 18


def _kernel(dtype: torch.dtype, epoch: int) -> tuple[str, bool]:
    """Our kernel for such tensors, and whether the CPU has AMX; ``epoch`` counts forced levels."""
    return _looked_up(dtype, epoch)


@lru_cache(maxsize=16)
def _looked_up(dtype: torch.dtype, epoch: int) -> tuple[str, bool]:
    return kernel_of(dtype), isa.levels().get("amx", False)


# As in packed_base.py: looked up when traced, and again where the epoch is another one.
_kernel._dynamo_marked_constant = True  # type: ignore[attr-defined]


def slower(q: Tensor, k: Tensor) -> str | None:
    """Where torch's attention is the faster one: ``python bench/run.py attention --peers``."""
    rows = q.shape[1] // max(k.shape[1], 1) * q.shape[2]
    why = slow_kernel(q.dtype, rows)
    if why is None and q.dtype == torch.float32 and 2 * q.numel() * k.shape[2] < _FEW_PRODUCTS:
        return f"torch is faster below {_FEW_PRODUCTS} multiply-adds in float32"
    return why


def slow_kernel(dtype: torch.dtype, rows: int) -> str | None:
    """Whether torch's attention is faster than our kernel, with so many queries for a head of k."""
    kernel, amx = _kernel(dtype, isa.epoch())
    if kernel in ("reference", "generic"):
        return f"torch is faster than the {kernel} kernel"
    if dtype == torch.bfloat16 and amx and kernel != "amx" and rows > _DIRECT_ROWS:
        return f"torch multiplies bfloat16 with AMX, the {kernel} kernel does not"
    return None
