"""Attention for inference: scores, softmax and the weighted sum of values in one call."""

from __future__ import annotations

import torch
from torch import Tensor

from . import attention_reference as plain
from . import pairs
from .checks import no_grad
from .define import define

define(
    "attention(Tensor q, Tensor k, Tensor v, Tensor? mask, float scale, bool is_causal) -> Tensor",
    plain,
)
define(
    "attention_rows(Tensor q, Tensor k, Tensor v, Tensor? mask, int head_size, float scale, bool "
    "is_causal) -> Tensor",
    plain,
)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
) -> Tensor:
    """``softmax(q @ k.T * scale + mask) @ v`` by head, as ``F.scaled_dot_product_attention``.

    A query for which every key is masked gets 0, as in torch. float32 products and sums are
    float32. bfloat16 products are exact, but the weights of the values are rounded to bfloat16
    where the CPU multiplies bfloat16; sums are float32. float16 is multiplied as float32. The
    online softmax over chunks of 512 keys is that of Milakov and Gimelshein 2018
    (arXiv:1805.02867), and, with blocks, of FlashAttention (Dao et al. 2022, arXiv:2205.14135).

    Args:
        q: float32, bfloat16 or float16 ``[B, H, Tq, D]``, with any strides.
        k, v: ``[B, Hkv, Tk, D]`` of the same dtype; H is a multiple of Hkv, and head ``h`` reads
            head ``h // (H / Hkv)`` of them (torch's ``enable_gqa``).
        mask: broadcasts to ``[B, H, Tq, Tk]``: bool (True: the query sees the key), or a float
            that is added to the score.
        scale: None means ``1 / sqrt(D)``.
        is_causal: query ``i`` sees keys ``0..i``. What it hides may be read all the same: NaN and
            infinities there can reach the output.

    Returns:
        ``[B, H, Tq, D]`` of q's dtype, laid out so that ``.transpose(1, 2).flatten(2)`` is a view.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or device than stated, requires
            grad, or ``mask`` and ``is_causal`` are both given.
    """
    no_grad("attention", q, k, v, mask)
    by = 1.0 if scale is None else scale
    if scale is None and q.dim() == 4 and q.shape[3] > 0:
        by = q.shape[3] ** -0.5
    try:
        out: Tensor = torch.ops.pyops.attention.default(q, k, v, mask, by, is_causal)
        return out
    except RuntimeError as error:
        refused = error
    plain.check(q, k, v, mask, is_causal)
    raise refused


def attention_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    head_size: int,
    scale: float | None = None,
    is_causal: bool = False,
) -> Tensor:
    """``attention`` on rows as the projections make them, without a view of each.

    Args:
        q: ``[B, Tq, H * D]``; columns ``h * D`` to ``(h + 1) * D`` are head ``h``.
        k, v: ``[B, Tk, Hkv * D]``.
        head_size: D.
        mask, scale, is_causal: as for ``attention``, and so are the dtypes.

    Returns:
        ``[B, Tq, H * D]`` of q's dtype, contiguous.

    Raises:
        TypeError, ValueError: as ``attention``; and a row is no multiple of ``head_size``.
    """
    no_grad("attention_rows", q, k, v, mask)
    try:
        by = scale if scale is not None else head_size**-0.5 if head_size > 0 else 1.0
        out: Tensor = torch.ops.pyops.attention_rows.default(
            q, k, v, mask, head_size, by, is_causal
        )
        return out
    except (TypeError, RuntimeError) as error:
        refused = error
    if not isinstance(head_size, (int, torch.SymInt)):
        name = type(head_size).__name__
        raise TypeError(f"attention_rows: head_size must be an int, but is {name}")
    plain.check(q, k, v, mask, is_causal, head_size, "attention_rows")
    raise refused


def kernel_of(dtype: torch.dtype) -> str:
    """The kernel that runs for tensors of ``dtype``; ``"reference"`` without a compiled module.

    Kernels that multiply pairs of bfloat16 leave other tensors to the next one that multiplies
    floats, as the driver does.
    """
    return pairs.kernel_of("attention", dtype)


def multiplies_pairs(dtype: torch.dtype) -> bool:
    """Whether the kernel for ``dtype`` rounds weights to bfloat16."""
    return pairs.multiplies_pairs("attention", dtype)
