"""What a fused module runs instead of its forward, and when it does not."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn

from .patterns import Notes


@dataclass
class Variant:
    """The graph as Python source, for a call with tensors for exactly these arguments."""

    tensors: tuple[str, ...]
    source: str
    names: dict[str, Any]  # what the source refers to; modules by their name
    notes: Notes = field(default_factory=dict)

    @classmethod
    def of(cls, graph: fx.Graph, tensors: tuple[str, ...], notes: Notes) -> Variant:
        code = graph.python_code(root_module="self")
        names = {
            name: _Import(value.__name__) if isinstance(value, ModuleType) else value
            for name, value in code.globals.items()
        }
        return cls(tensors, code.src, names, notes)

    def __post_init__(self) -> None:
        scope = {
            name: importlib.import_module(value.name) if isinstance(value, _Import) else value
            for name, value in self.names.items()
        }
        exec(compile(self.source, "<pyops.graph>", "exec"), scope)
        self.call = scope["forward"]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "call"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()


@dataclass(frozen=True)
class _Import:
    name: str


class GraphForward:
    """Takes the place of ``owner.method``, on the instance.

    A call runs the graph that was made for its arguments: those that are tensors, with all others
    at their defaults. Any other call runs the method as written, as does every call under autocast
    (which decides by function) or after one of the module's own attributes was changed.
    """

    def __init__(self, owner: nn.Module, method: str, variants: list[Variant]) -> None:
        self.owner = owner
        self.method = method
        self.variants = {variant.tensors: variant for variant in variants}
        signature = inspect.signature(getattr(type(owner), method))
        parameters = list(signature.parameters.values())[1:]
        self.arguments = tuple(
            p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        self.defaults = {p.name: p.default for p in parameters}
        self.attributes = _own_attributes(owner)

    @property
    def notes(self) -> Notes:
        """What was fused, by the path of the layer from the owner, over all variants."""
        merged: Notes = {}
        for variant in self.variants.values():
            for path, notes in variant.notes.items():
                known = merged.setdefault(path, [])
                known.extend(note for note in notes if note not in known)
        return merged

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self.arguments, args, strict=False))
        variant = None
        if len(given) == len(args) and not (kwargs and given.keys() & kwargs.keys()):
            given.update(kwargs)
            variant = self._variant(given)
        if variant is None:
            return getattr(type(self.owner), self.method)(self.owner, *args, **kwargs)
        return variant.call(self.owner, *[given[name] for name in variant.tensors])

    def _variant(self, given: dict[str, Any]) -> Variant | None:
        key = []
        for name, value in given.items():
            if isinstance(value, Tensor):
                key.append(name)
            elif name not in self.defaults or value is not self.defaults[name]:
                return None
        variant = self.variants.get(tuple(key)) or self.variants.get(tuple(sorted(key)))
        if variant is None or not self._as_traced():
            return None
        device = given[key[0]].device.type if key else "cpu"
        if device != "meta" and torch.is_autocast_enabled(device):
            return None
        return variant

    def _as_traced(self) -> bool:
        now = self.owner.__dict__
        return all(now.get(name) is value for name, value in self.attributes)

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphForward:
        import copy

        new = object.__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update(self.__dict__)  # variants take the owner as their argument: shared
        new.owner = copy.deepcopy(self.owner, memo)
        new.attributes = _own_attributes(new.owner)
        return new


def _own_attributes(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (name, value)
        for name, value in module.__dict__.items()
        if isinstance(value, (bool, int, float, str, type(None))) and name != "training"
    )


def graph_of(module: nn.Module) -> GraphForward | None:
    """What the module runs, if it is fused."""
    found = [value for value in module.__dict__.values() if isinstance(value, GraphForward)]
    return found[0] if found else None
