"""``prune(pattern="channel")`` is ``prune_channels``."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import pyops

X = torch.randn(2, 3, 8, 8)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 3)).eval()


def test_layers_become_smaller() -> None:
    model = net()
    small = pyops.prune(model, 0.5, pattern="channel", example_inputs=X)
    same = pyops.prune.prune_channels(model, 0.5, example_inputs=X)
    assert small[0].weight.shape == (32, 3, 3, 3)  # type: ignore[index]
    assert torch.equal(small(X), same(X))
    kept = pyops.prune(model, retain=0.5, pattern="channel", example_inputs=X)
    assert torch.equal(kept(X), same(X))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"sparsity": 0.5, "calibration": [X]}, "prune: pattern 'channel' takes no calibration="),
        ({"sparsity": 0.5, "strict": True}, "prune: pattern 'channel' takes no strict="),
        ({"sparsity": 0.5, "progress": True}, "prune: pattern 'channel' takes no progress="),
        ({"sparsity": 0.5, "retain": 0.5}, "prune: give sparsity or retain, not both"),
        ({}, "prune: pattern 'channel' needs sparsity= or retain="),
        ({"retain": 1.5}, "prune: retain is 1.5, expected above 0 and below 1"),
        ({"sparsity": 0.0}, "prune: sparsity is 0.0, expected above 0 and below 1"),
    ],
)
def test_refusals(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        pyops.prune(net(), pattern="channel", **arguments)
