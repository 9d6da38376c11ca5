"""``MaskedConv2d`` and ``MaskedConv1d``: pruned convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from .masked_module import MaskedModule, masks


@masks(nn.Conv2d)
class MaskedConv2d(MaskedModule, nn.Conv2d):
    """An ``nn.Conv2d`` with ``weight where weight_mask, else 0``; arguments of ``nn.Conv2d``."""

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` (or ``[C, H, W]``) as ``nn.Conv2d``."""
        return self._conv_forward(input, self.masked_weight(), self.bias)


@masks(nn.Conv1d)
class MaskedConv1d(MaskedModule, nn.Conv1d):
    """An ``nn.Conv1d`` with ``weight where weight_mask, else 0``; arguments of ``nn.Conv1d``."""

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, L]`` (or ``[C, L]``) as ``nn.Conv1d``."""
        return self._conv_forward(input, self.masked_weight(), self.bias)
