"""A model as it was, whatever its forward does to its buffers and attributes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_OF_ALL = frozenset(nn.Module().__dict__)  # parts, parameters, hooks, the mode
_CONTAINERS = (list, dict, set)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[list[str]]:
    """Puts the buffers and attributes of all modules back when the block ends, and the state of the
    CPU's random generator.

    The list that the block gets names what it had changed ("the buffer n"), once the block is over.
    Parts, parameters, hooks and modes are the block's own matter. Of attributes, what lists, dicts
    and sets hold is looked at, not what other objects hold.
    """
    states = [_State(name, module) for name, module in model.named_modules()]
    changes: list[str] = []
    try:
        with torch.random.fork_rng(devices=[]):
            yield changes
    finally:
        for state in states:
            changes += state.put_back()


class _State:
    """Buffers and attributes of one module."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.path = f"{name}." if name else ""
        self.places: list[tuple[str, dict[str, Any]]] = [
            ("buffer", module._buffers), ("attribute", module.__dict__)
        ]  # fmt: skip
        self.kept = [
            {key: _Value(value) for key, value in place.items() if key not in _OF_ALL}
            for _, place in self.places
        ]

    def put_back(self) -> list[str]:
        """What had changed."""
        changes = []
        for (kind, place), kept in zip(self.places, self.kept, strict=True):
            new = [key for key in place if key not in kept and key not in _OF_ALL]
            for key in new:
                del place[key]
            others = [key for key, one in kept.items() if one.put_back(place, key)]
            changes += [f"the {kind} {self.path}{key}" for key in new + others]
        return changes


class _Value:
    """One value, and what it holds."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.held: Any = None
        self.version: int | None = None
        if type(value) in _CONTAINERS:
            self.held = value.copy()
        elif isinstance(value, Tensor) and not value.is_meta:
            self.held = value.detach().clone()
            self.version = None if value.is_inference() else value._version

    def put_back(self, place: dict[str, Any], key: str) -> bool:
        """Whether it had changed."""
        other = key not in place or place[key] is not self.value
        place[key] = self.value
        return self._put_back_held() or other

    def _put_back_held(self) -> bool:
        value, held = self.value, self.held
        if held is None:
            return False
        if isinstance(value, Tensor):
            if self.version is not None and value._version == self.version:
                return False
            if self.version is None and torch.equal(value, held):
                return False
            with torch.inference_mode(value.is_inference()), torch.no_grad():
                value.copy_(held)
            return True
        if _same(value, held):
            return False
        value.clear()
        value.extend(held) if isinstance(value, list) else value.update(held)
        return True


def _same(value: Any, held: Any) -> bool:
    """Whether two containers of one type hold the same objects."""
    if isinstance(value, dict):
        return list(map(id, value)) == list(map(id, held)) and all(
            value[key] is one for key, one in held.items()
        )
    if isinstance(value, set):
        return set(map(id, value)) == set(map(id, held))
    return list(map(id, value)) == list(map(id, held))
