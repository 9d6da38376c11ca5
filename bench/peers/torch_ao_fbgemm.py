"""torch.ao int8 with the fbgemm engine: dynamic, or static between uint8 tensors."""

from __future__ import annotations

import torch_ao
from case import Call, Case

NAME = "torch.ao fbgemm"
KINDS = torch_ao.KINDS
SLOW = False


def make(case: Case) -> Call:
    """Return the int8 Linear or the dynamic int8 model."""
    return torch_ao.make(case, "fbgemm")
