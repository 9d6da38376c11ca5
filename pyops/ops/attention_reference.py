"""Checks, references in plain torch, and fakes of ``attention`` and ``attention_rows``."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import FLOAT_NAMES, FLOATS, floats


def check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    head_size: int | None = None,
    op: str = "attention",
) -> None:
    """Refuse what ``attention`` does not take, or ``attention_rows`` with a ``head_size``.

    Raises:
        TypeError, ValueError: with what was given and what was expected.
    """
    dims, axes = (4, "[B, H, T, D]") if head_size is None else (3, "[B, T, H * D]")
    floats(op, "q", q.dtype)
    for name, t in (("q", q), ("k", k), ("v", v)):
        if t.dtype != q.dtype:
            raise TypeError(f"{op}: {name} must have the dtype of q, {q.dtype}, not {t.dtype}")
        if t.device != q.device:
            raise ValueError(f"{op}: {name} is on {t.device}, but q on {q.device}")
        if t.dim() != dims:
            raise ValueError(f"{op}: {name} must be {dims}-D {axes}, but is {t.dim()}-D")
    if head_size is not None:
        _head_size(op, head_size, q, k, v)
        q, k, v = (heads_of(t, head_size) for t in (q, k, v))
    _shapes(op, q, k, v)
    if mask is not None:
        _mask(op, q, k, mask, is_causal)


def heads_of(rows: Tensor, head_size: int) -> Tensor:
    """Rows ``[B, T, H * D]`` as ``[B, H, T, D]``, a view."""
    batch, tokens, width = rows.shape
    return rows.reshape(batch, tokens, width // head_size, head_size).transpose(1, 2)


def _head_size(op: str, head_size: int, q: Tensor, k: Tensor, v: Tensor) -> None:
    if head_size < 1:
        raise ValueError(f"{op}: head_size must be at least 1, but is {head_size}")
    for name, t in (("q", q), ("k", k), ("v", v)):
        if t.shape[2] % head_size:
            raise ValueError(
                f"{op}: the rows of {name} have {t.shape[2]} columns, "
                f"which is no multiple of head_size, {head_size}"
            )


def _shapes(op: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    if q.shape[3] == 0:
        raise ValueError(f"{op}: the head size must be at least 1, but is 0")
    if (k.shape[0], k.shape[3]) != (q.shape[0], q.shape[3]):
        raise ValueError(
            f"{op}: k must have the batch and head size of q, {q.shape[0]} and {q.shape[3]}, "
            f"but has {k.shape[0]} and {k.shape[3]}"
        )
    if v.shape != k.shape:
        raise ValueError(
            f"{op}: v must have the shape of k, {list(k.shape)}, but is {list(v.shape)}"
        )
    heads, kv_heads = q.shape[1], k.shape[1]
    if heads % kv_heads if kv_heads else heads:
        raise ValueError(
            f"{op}: the heads of q ({heads}) must be a multiple of those of k ({kv_heads})"
        )


def _mask(op: str, q: Tensor, k: Tensor, mask: Tensor, is_causal: bool) -> None:
    if is_causal:
        raise ValueError(f"{op}: give either mask or is_causal=True, not both")
    if mask.dtype not in (torch.bool, *FLOATS):
        raise TypeError(f"{op}: mask must be torch.bool, {FLOAT_NAMES}, but is {mask.dtype}")
    if mask.device != q.device:
        raise ValueError(f"{op}: mask is on {mask.device}, but q on {q.device}")
    full = [*q.shape[:3], k.shape[2]]
    sizes = zip(mask.shape, full[4 - mask.dim() :], strict=False)
    if mask.dim() > 4 or any(a not in (1, b) for a, b in sizes):
        raise ValueError(f"{op}: mask must broadcast to {full}, but is {list(mask.shape)}")


def attention_reference(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, is_causal: bool
) -> Tensor:
    check(q, k, v, mask, is_causal)
    with torch.autocast(q.device.type, enabled=False):
        return _attend(q, k, v, mask, scale, is_causal)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, is_causal: bool
) -> Tensor:
    wide = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[1] // max(k.shape[1], 1)
    k, v = (t.to(wide).repeat_interleave(group, 1) for t in (k, v))
    scores = q.to(wide) @ k.transpose(-1, -2) * scale
    if is_causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores + torch.zeros_like(mask, dtype=wide).masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask.to(wide)
    if scores.shape[-1] == 0:
        out = torch.zeros(q.shape, dtype=wide, device=q.device)
    else:
        nothing = (scores == -torch.inf).all(-1, keepdim=True)
        out = torch.softmax(scores, -1).masked_fill(nothing, 0.0) @ v
    return out.to(q.dtype).transpose(1, 2).contiguous().transpose(1, 2)


def attention_fake(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, is_causal: bool
) -> Tensor:
    check(q, k, v, mask, is_causal)
    batch, heads, queries, depth = q.shape
    return q.new_empty((batch, queries, heads, depth)).transpose(1, 2)


def attention_rows_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    head_size: int,
    scale: float,
    is_causal: bool,
) -> Tensor:
    check(q, k, v, mask, is_causal, head_size, "attention_rows")
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = (heads_of(t, head_size) for t in (q, k, v))
        return _attend(q, k, v, mask, scale, is_causal).transpose(1, 2).flatten(2)


def attention_rows_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    head_size: int,
    scale: float,
    is_causal: bool,
) -> Tensor:
    check(q, k, v, mask, is_causal, head_size, "attention_rows")
    return q.new_empty(q.shape)
