"""Cases on another device."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def on_device(value: T, device: torch.device | str) -> T:
    """``value`` with every tensor in it on ``device``: a dataclass, dict, list, tuple or tensor."""
    found: Any = value
    if isinstance(value, Tensor):
        found = value.to(device)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        moved = {name: on_device(one, device) for name, one in fields.items()}
        found = dataclasses.replace(value, **moved)
    elif isinstance(value, dict):
        found = {key: on_device(one, device) for key, one in value.items()}
    elif isinstance(value, (list, tuple)):
        found = type(value)(on_device(one, device) for one in value)
    return found
