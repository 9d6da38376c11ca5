"""torch's ``scaled_dot_product_attention``, on the case's own tensors."""

from __future__ import annotations

import torch.nn.functional as F
from case import Call, Case

NAME = "torch SDPA"
KINDS = ("attention", "causal attention")
SLOW = False


def make(case: Case) -> Call:
    """Return the call on the case's q, k and v, heads repeated where k has fewer."""
    q, k, v = (case.tensors[name] for name in ("q", "k", "v"))
    causal, grouped = case.kind == "causal attention", q.shape[1] != k.shape[1]
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
