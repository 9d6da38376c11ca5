"""OpenVINO: one int8 convolution, uint8 in and out in place."""

from __future__ import annotations

import openvino_layer
from case import Call, Case

NAME = "openvino conv int8"
KINDS = ("static_conv",)
SLOW = False
OWN_THREADS = True


def make(case: Case) -> Call:
    """Return a request of the layer."""
    return openvino_layer.make(case)
