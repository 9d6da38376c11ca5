"""torchao's dynamic int8 activations and int8 weights, in eager mode."""

from __future__ import annotations

import torchao_dynamic
from case import Call, Case

NAME = "torchao"
KINDS = ("linear", "model")
SLOW = False


def make(case: Case) -> Call:
    """Return the converted model."""
    model, inputs = torchao_dynamic.converted(case)
    return lambda: model(*inputs)
