"""Our own net without sparse kernels, beside the pruned one: what pruning has to beat."""

from __future__ import annotations

from case import Call, Case

import pyops

NAME = "pyops dense"
KINDS = ("convnet pruned",)
SLOW = False


def make(case: Case) -> Call:
    """Return the call of ``fuse``'s model, which multiplies with the zeros too."""
    assert case.model is not None
    model = pyops.fuse(case.model, example_inputs=case.inputs)
    return lambda: model(*case.inputs)
