"""torch.ao dynamic int8 with the x86 engine."""

from __future__ import annotations

import torch_ao
from case import Call, Case

NAME = "torch.ao x86"
KINDS = torch_ao.KINDS
SLOW = False


def make(case: Case) -> Call:
    """Return the dynamic int8 Linear or model."""
    return torch_ao.make(case, "x86")
