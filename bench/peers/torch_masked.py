"""torch's dense autograd with masks: ``F.linear(x, weight * mask)``."""

from __future__ import annotations

import torch.nn.functional as F
from case import Call, Case
from masked_steps import gradient

NAME = "torch dense with mask"
KINDS = ("masked",)
SLOW = False


def make(case: Case) -> Call:
    """Return the same step, with or without the optimizer, by dense products."""
    return gradient(
        dict(case.tensors),
        lambda x, weight, mask, bias, _: F.linear(x, weight * mask, bias),
        optimizer="SGD" in case.name,
    )
