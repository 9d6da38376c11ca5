"""Random masked products and their gradients, with exact results and bounds.

With ``u = 2**-24``, a sum of K float32 products in any order, with or without fused multiply-adds,
is within ``(K + 2) u`` of the sum of absolute products. The weight's gradient sums over M rows in
lanes, which are reduced at the end: ``(M + 8) u``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyops.ops import SparsePattern, masked_matmul, masked_pack, masked_weight_grad

U = 2.0**-24
# Shares of the weight that are kept.
SHARES = (0.1, 0.3, 0.02, 1.0, 0.0)


@dataclass
class MaskedCase:
    """Arguments of ``masked_matmul``, and the gradient of its output."""

    x: Tensor
    weight: Tensor
    mask: Tensor
    bias: Tensor | None
    grad: Tensor

    @property
    def label(self) -> str:
        kept = float(self.mask.double().mean())
        return f"x{list(self.x.shape)} w{list(self.weight.shape)} {kept:.0%} kept"

    def weight_grad(self, packed: Tensor | None = None) -> Tensor:
        """By the kernel that is active."""
        packed = masked_pack(self.mask) if packed is None else packed
        return masked_weight_grad(self.grad, self.x, packed)

    def exact_weight_grad(self) -> tuple[Tensor, Tensor]:
        """The gradient in float64, and the bound of the error."""
        dy, x = self.grad.double().flatten(0, -2), self.x.double().flatten(0, -2)
        exact = torch.where(self.mask, dy.t() @ x, 0.0)
        return exact, (len(x) + 8) * U * (dy.abs().t() @ x.abs())

    def step(self, state: SparsePattern | None = None) -> tuple[Tensor, ...]:
        """Output and the gradients of x, weight and bias, where there is one."""
        inputs = [
            t.detach().requires_grad_() for t in (self.x, self.weight, self.bias) if t is not None
        ]
        bias = inputs[2] if self.bias is not None else None
        out = masked_matmul(inputs[0], inputs[1], self.mask, bias, state=state)
        return out.detach(), *torch.autograd.grad(out, inputs, self.grad)

    def exact(self) -> list[tuple[Tensor, Tensor]]:
        """What ``step`` returns, in float64, each with its bound."""
        x, dy = self.x.double(), self.grad.double()
        kept = torch.where(self.mask, self.weight, 0.0).double()
        n, k = kept.shape
        out, out_bound = x @ kept.t(), (k + 2) * U * (x.abs() @ kept.abs().t())
        result = [
            (dy @ kept, (n + 2) * U * (dy.abs() @ kept.abs())),
            self.exact_weight_grad(),
        ]
        if self.bias is not None:
            out = out + self.bias.double()
            out_bound = out_bound * (1 + U) + U * (out.abs() + self.bias.double().abs())
            rows = dy.flatten(0, -2)
            result.append((rows.sum(0), (len(rows) + 2) * U * rows.abs().sum(0)))
        return [(out, out_bound), *result]


def masked_case(seed: int, m: int, n: int, k: int, share: float | None = None) -> MaskedCase:
    """A case that depends on its arguments alone."""
    rng = torch.Generator().manual_seed(seed)
    share = SHARES[seed % len(SHARES)] if share is None else share
    mask = torch.rand(n, k, generator=rng) < share
    if seed % 4 == 1:  # four adjacent outputs share their pattern
        mask = mask[::4].repeat_interleave(4, 0)[:n]
    if seed % 4 == 3:  # some rows and columns are left out
        mask[:: 3 + seed % 5], mask[:, :: 2 + seed % 3] = False, False
    return MaskedCase(
        torch.randn(m, k, generator=rng),
        torch.randn(n, k, generator=rng) / max(k, 1) ** 0.5,
        mask,
        torch.randn(n, generator=rng) if seed % 2 else None,
        torch.randn(m, n, generator=rng),
    )
