"""Random attention problems, and how far a float computation of them may be off.

With u = 2^-24 and, for key j, A = scale * sum_d |q_d k_d|, x the score and m the largest score:

* a score is off by at most (D + 4) u A + 2 u (|x| + |mask|): D roundings of the sum (2 D where
  pairs are multiplied), scale, mask, their sum;
* the exponent by 8 u (m - x): log2(e) and the product are rounded, before and after a chunk of keys
  changes m; what is rounded in m itself is common to all keys and cancels;
* 2^t by 7.5e-8 of its polynomial and 16 u of its evaluation, once per chunk of keys.

So a weight is off by a factor of e^E, E being the sum of these; with bf16 weights the polynomial
has 7.5e-5 and rounding adds 2^-8. The weighted mean o of v is then off by
sum_j w_j (e^E_j - 1) (|v_j| + |o|), and sums over T keys by (T + 8) u sum_j w_j |v_j| for each of
numerator and denominator. The output is rounded once more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyops.ops import attention
from pyops.ops.attention_reference import attention_reference

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
MASKS = ("none", "bool", "float", "causal")
CHUNK = 512  # kChunkKeys of csrc/cpu/attention/pack.h


@dataclass
class AttentionCase:
    """Arguments of ``attention``."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None = None
    scale: float | None = None
    is_causal: bool = False

    @property
    def by(self) -> float:
        return float(self.q.shape[3] ** -0.5) if self.scale is None else self.scale

    @property
    def label(self) -> str:
        mask = None if self.mask is None else (self.mask.dtype, tuple(self.mask.shape))
        shapes = f"q{list(self.q.shape)} k{list(self.k.shape)} {self.q.dtype}"
        return f"{shapes} mask {mask} scale {self.scale} causal {self.is_causal}"

    def run(self) -> Tensor:
        """By the kernel that is active."""
        return attention(
            self.q, self.k, self.v, self.mask, scale=self.scale, is_causal=self.is_causal
        )

    def reference(self) -> Tensor:
        return attention_reference(self.q, self.k, self.v, self.mask, self.by, self.is_causal)

    def exact(self, pairs: bool = False) -> tuple[Tensor, Tensor]:
        """The result in float64, and the bound of the error; ``pairs``: of bf16 products."""
        group = self.q.shape[1] // max(self.k.shape[1], 1)
        q = self.q.double()
        k, v = (t.double().repeat_interleave(group, 1) for t in (self.k, self.v))
        x = q @ k.mT * self.by
        size = q.abs() @ k.abs().mT * abs(self.by)
        added = torch.zeros_like(x) if self.mask is None else self._added(x)
        x = x + added
        if x.shape[3] == 0:
            return torch.zeros_like(q), torch.zeros_like(q)
        hidden = x == -torch.inf
        top = x.amax(-1, keepdim=True)
        w = torch.softmax(x, -1).masked_fill(hidden, 0.0)
        out = w @ v
        u, terms = 2.0**-24, q.shape[3] * (2 if pairs else 1)
        chunks = -(-x.shape[3] // CHUNK)
        error = (terms + 4) * u * size + 2 * u * (x.abs() + added.abs()) + 8 * u * (top - x)
        error = error + chunks * (16 * u + 7.5e-8) + (2.0**-8 + 7.5e-5 if pairs else 0.0)
        spread = (w * error.masked_fill(hidden, 0.0).expm1()).masked_fill(hidden, 0.0)
        sums = 2 * (x.shape[3] + 8) * u * (w @ v.abs())
        bound = spread @ v.abs() + spread.sum(-1, keepdim=True) * out.abs() + sums
        info = torch.finfo(self.q.dtype)
        bound = bound * (1 + info.eps) + info.eps * out.abs() + info.tiny
        return out, bound

    def _added(self, x: Tensor) -> Tensor:
        assert self.mask is not None
        if self.mask.dtype == torch.bool:
            return torch.zeros_like(x).masked_fill(~self.mask, -torch.inf)
        return self.mask.double().expand(x.shape)


def causal_as_mask(case: AttentionCase) -> AttentionCase:
    """The same problem with the causal rule written as a mask."""
    shape = (case.q.shape[2], case.k.shape[2])
    seen = torch.ones(shape, dtype=torch.bool).tril()
    return AttentionCase(case.q, case.k, case.v, seen, case.scale)


def attention_case(
    seed: int,
    shape: tuple[int, int, int, int, int, int],
    dtype: torch.dtype = torch.float32,
    mask: str = "none",
) -> AttentionCase:
    """A case that depends on its arguments alone; ``shape``: B, H, Hkv, Tq, Tk, D."""
    batch, heads, kv_heads, queries, keys, depth = shape
    rng = torch.Generator().manual_seed(seed)

    def tensor(h: int, t: int) -> Tensor:
        return torch.randn(batch, t, h, depth, generator=rng).to(dtype).transpose(1, 2)

    case = AttentionCase(tensor(heads, queries), tensor(kv_heads, keys), tensor(kv_heads, keys))
    full = [batch, heads, queries, keys]
    broadcast = [1 if int(torch.randint(2, (), generator=rng)) else n for n in full]
    if mask == "bool":
        case.mask = torch.rand(broadcast, generator=rng) < 0.8
    elif mask == "float":
        case.mask = torch.randn(broadcast, generator=rng)
        case.mask.masked_fill_(torch.rand(broadcast, generator=rng) < 0.2, -torch.inf)
    case.is_causal = mask == "causal"
    if seed % 3 == 0:
        case.scale = 0.3
    return case
