"""Our own net or encoder in int8 without sparse kernels: what pruning has to beat."""

from __future__ import annotations

from case import Call, Case, calibration_of

import pyops

NAME = "pyops dense int8"
KINDS = ("convnet pruned int8", "model pruned int8")
SLOW = False


def make(case: Case) -> Call:
    """Return the call of ``quantize``'s model; a convnet is static, an encoder dynamic."""
    assert case.model is not None
    if case.kind.startswith("convnet"):
        model = pyops.quantize(case.model, calibration=calibration_of(case))
    else:
        model = pyops.quantize(case.model, example_inputs=case.inputs, never_slower=False)
    return lambda: model(*case.inputs)
