"""The example that a model was captured with, as JSON: types and shapes, no values of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .simple_code import CannotTraceError


def encode(value: Any) -> Any:
    """A tensor, a constant, or lists, tuples and dicts of them.

    Raises:
        CannotTraceError: anything else.
    """
    if isinstance(value, Tensor):
        return {"tensor": list(value.shape), "dtype": _name(value.dtype)}
    if isinstance(value, torch.dtype):
        return {"dtype": _name(value)}
    if value is None or type(value) in (bool, int, float, str):
        return {"value": value}
    if type(value) in (list, tuple):
        return {type(value).__name__: [encode(item) for item in value]}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: encode(item) for key, item in value.items()}}
    raise CannotTraceError(f"the example holds a {type(value).__name__}")


def decode(raw: Any, device: torch.device) -> Any:
    """The inverse; tensors lie on ``device`` and hold what was there before.

    Raises:
        ValueError: not what ``encode`` returns.
    """
    try:
        if "tensor" in raw:
            return torch.empty(raw["tensor"], dtype=_dtype(raw["dtype"]), device=device)
        [(kind, inside)] = raw.items()
        if kind == "dtype":
            return _dtype(inside)
        if kind == "value" and (inside is None or type(inside) in (bool, int, float, str)):
            return inside
        if kind == "dict":
            return {key: decode(item, device) for key, item in inside.items()}
        return {"list": list, "tuple": tuple}[kind](decode(item, device) for item in inside)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"not an example: {raw!r}") from error


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(name)
    return dtype
