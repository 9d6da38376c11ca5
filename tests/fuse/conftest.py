"""Small nets whose batch norms are not the identity."""

from __future__ import annotations

import pytest
import torch
from torch import nn


def settled(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
    return model.eval()


@pytest.fixture
def settle():
    """``settle(model)``: in eval mode, with numbers in its norms."""
    return settled
