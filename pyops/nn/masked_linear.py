"""``MaskedLinear``: a pruned ``nn.Linear``."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .masked_module import MaskedModule, masks


@masks(nn.Linear)
class MaskedLinear(MaskedModule, nn.Linear):
    """``y = x (weight where weight_mask, else 0)^T + bias``; arguments of ``nn.Linear``."""

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        return F.linear(input, self.masked_weight(), self.bias)
