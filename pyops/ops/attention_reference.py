"""Checks, reference in plain torch, and fake of ``attention``."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import FLOAT_NAMES, FLOATS, floats


def check(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool) -> None:
    """Refuse what ``attention`` does not take.

    Raises:
        TypeError, ValueError: with what was given and what was expected.
    """
    floats("attention", "q", q.dtype)
    for name, t in (("q", q), ("k", k), ("v", v)):
        if t.dtype != q.dtype:
            raise TypeError(f"attention: {name} must have the dtype of q, {q.dtype}, not {t.dtype}")
        if t.device != q.device:
            raise ValueError(f"attention: {name} is on {t.device}, but q on {q.device}")
        if t.dim() != 4:
            raise ValueError(f"attention: {name} must be 4-D [B, H, T, D], but is {t.dim()}-D")
    _shapes(q, k, v)
    if mask is not None:
        _mask(q, k, mask, is_causal)


def _shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    if q.shape[3] == 0:
        raise ValueError("attention: the head size must be at least 1, but is 0")
    if (k.shape[0], k.shape[3]) != (q.shape[0], q.shape[3]):
        raise ValueError(
            f"attention: k must have the batch and head size of q, {q.shape[0]} and {q.shape[3]}, "
            f"but has {k.shape[0]} and {k.shape[3]}"
        )
    if v.shape != k.shape:
        raise ValueError(
            f"attention: v must have the shape of k, {list(k.shape)}, but is {list(v.shape)}"
        )
    heads, kv_heads = q.shape[1], k.shape[1]
    if heads % kv_heads if kv_heads else heads:
        raise ValueError(
            f"attention: the heads of q ({heads}) must be a multiple of those of k ({kv_heads})"
        )


def _mask(q: Tensor, k: Tensor, mask: Tensor, is_causal: bool) -> None:
    if is_causal:
        raise ValueError("attention: give either mask or is_causal=True, not both")
    if mask.dtype not in (torch.bool, *FLOATS):
        raise TypeError(f"attention: mask must be torch.bool, {FLOAT_NAMES}, but is {mask.dtype}")
    if mask.device != q.device:
        raise ValueError(f"attention: mask is on {mask.device}, but q on {q.device}")
    full = [*q.shape[:3], k.shape[2]]
    sizes = zip(mask.shape, full[4 - mask.dim() :], strict=False)
    if mask.dim() > 4 or any(a not in (1, b) for a, b in sizes):
        raise ValueError(f"attention: mask must broadcast to {full}, but is {list(mask.shape)}")


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
