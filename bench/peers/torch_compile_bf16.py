"""torch.compile of the model in bf16; no cast is timed."""

from __future__ import annotations

import copy

from case import Call, Case, as_model
from compiling import compiled

NAME = "torch.compile bf16"
KINDS = ("model", "convnet bf16")
SLOW = True


def make(case: Case) -> Call:
    """Return the compiled model."""
    model, inputs = as_model(case)
    return compiled(
        copy.deepcopy(model).bfloat16(),
        tuple(x.bfloat16() if x.is_floating_point() else x for x in inputs),
    )
