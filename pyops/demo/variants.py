"""The versions of a model that the demo compares."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import pyops

from ..testing import torch_dynamic

BASE = "torch fp32"
OURS = "pyops int8"


@dataclass(frozen=True)
class Variant:
    """A version of the model, or the reason why there is none."""

    name: str
    model: nn.Module | None
    reason: str = ""


def build(model: nn.Module, example_inputs: tuple[Tensor, ...] | None) -> list[Variant]:
    """Return ``model`` in fp32, bf16, torch's dynamic int8 and ours, in this order.

    With ``example_inputs`` ours keeps each layer in float where int8 is slower on them.
    """
    ours = pyops.quantize(model, example_inputs=example_inputs)
    return [
        Variant(BASE, model),
        Variant("torch bf16", copy.deepcopy(model).to(torch.bfloat16)),
        _or_reason("torch dynamic int8", lambda: torch_dynamic.quantize(model)),
        Variant(OURS, ours),
    ]


def _or_reason(name: str, make: Callable[[], nn.Module]) -> Variant:
    try:
        return Variant(name, make())
    except torch_dynamic.UnavailableError as error:
        return Variant(name, None, str(error))
