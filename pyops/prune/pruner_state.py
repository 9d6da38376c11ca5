"""Whether the state of a ``Pruner`` is one that another can go on from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .schedule import Schedule


def told(schedule: Schedule) -> str:
    """Its class, and all of its attributes that are plain values."""
    plain = (bool, int, float, str, type(None))
    names: Any = getattr(schedule, "__dict__", None) or getattr(type(schedule), "__slots__", ())
    values = {name: getattr(schedule, name) for name in sorted(names)}
    inside = ", ".join(f"{name}={v!r}" for name, v in values.items() if isinstance(v, plain))
    return f"{type(schedule).__name__}({inside})"


def digest(mask: Tensor) -> str:
    """A hash of what a mask leaves, in the order of the weight's dimensions."""
    return hashlib.sha256(mask.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def check_values(state: Any, mine: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """All but the layers, see ``Pruner.load_state_dict``. ``mine``: the pruner's own state."""
    if not isinstance(state, Mapping):
        raise TypeError(f"Pruner: the state is a {type(state).__name__}, expected a dict")
    missing = sorted({*mine} - {*state})
    if missing:
        raise ValueError(f"Pruner: the state has no {missing[0]!r}")
    for name, value in config.items():
        if type(state[name]) not in (type(value), int, float):
            given, wanted = type(state[name]).__name__, type(value).__name__
            raise ValueError(f"Pruner: {name} in the state is a {given}, expected a {wanted}")
        if state[name] != value:
            raise ValueError(f"Pruner: {name} is {state[name]!r} in the state, but {value!r} here")
    generator = state["generator"]
    if (generator is None) != (mine["generator"] is None):
        raise ValueError("Pruner: the state and this pruner differ in having a generator")
    if generator is not None and not (
        isinstance(generator, Tensor)
        and generator.dtype == torch.uint8
        and generator.shape == mine["generator"].shape
    ):
        raise TypeError("Pruner: generator in the state is not what torch.Generator.get_state says")
    steps, share = state["steps"], state["share"]
    if type(steps) is not int or type(share) not in (int, float):
        given = f"{type(steps).__name__} and {type(share).__name__}"
        raise TypeError(f"Pruner: steps and share are {given} in the state, expected int and float")
    if steps < 0 or not 0 <= share <= config["sparsity"] + 1e-9:
        raise ValueError(
            f"Pruner: steps and share are {steps} and {share} in the state, expected at least 0 "
            f"and 0 to {config['sparsity']:g}"
        )


def check_layers(state: Mapping[str, Any], masks: Mapping[str, Tensor]) -> None:
    """Whether the state is of these masks."""
    for key in ("left", "masks"):
        if not isinstance(state[key], Mapping):
            given = type(state[key]).__name__
            raise TypeError(f"Pruner: {key} in the state is a {given}, expected a dict")
        other = sorted({*state[key]} ^ {*masks})
        if other:
            where = "this pruner" if other[0] in masks else "the state"
            raise ValueError(f"Pruner: only {where} prunes {other[0]!r}")
        kind, article = (int, "an") if key == "left" else (str, "a")
        for name, value in state[key].items():
            if type(value) is not kind:
                raise TypeError(
                    f"Pruner: {key} of {name!r} in the state is a {type(value).__name__}, expected "
                    f"{article} {kind.__name__}"
                )
    for name, mask in masks.items():
        left = int(mask.sum())
        if state["left"][name] != left:
            raise ValueError(
                f"Pruner: {name!r} has {left} weights left, but {state['left'][name]} in the "
                "state: load the model's state_dict first"
            )
        if state["masks"][name] != digest(mask):
            raise ValueError(
                f"Pruner: {name!r} has {left} weights left as in the state, but other ones: load "
                "the model's state_dict first"
            )
