"""torch.ao dynamic int8 with the fbgemm engine."""

from __future__ import annotations

import torch_ao
from case import Call, Case

NAME = "torch.ao fbgemm"
KINDS = torch_ao.KINDS
SLOW = False


def make(case: Case) -> Call:
    """Return the dynamic int8 Linear or model."""
    return torch_ao.make(case, "fbgemm")
