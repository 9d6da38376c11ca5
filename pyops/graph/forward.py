"""What a fused module runs instead of its forward, and when it does not."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as torch_module

from .guards import Guard, Watch
from .regions import Notes


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
        scope: dict[str, Any] = {
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
    at their defaults. Any other call runs the method as written; so does every call under autocast
    (which decides by function), while a part has hooks or is in train mode, and after anything was
    exchanged that the method reads (``guards.py``). ``copy.deepcopy`` and pickle make a
    graph of the copy; ``copy.copy`` shares this one, which runs on the original.
    """

    is_graph = True  # tells it from a forward that somebody else put on the instance

    def __init__(
        self, owner: nn.Module, method: str, variants: list[Variant], guards: list[Guard]
    ) -> None:
        self.owner = owner
        self.method = method
        self.variants = {variant.tensors: variant for variant in variants}
        signature = signature_of(owner, method)
        parameters = signature.parameters.values()
        self.arguments = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        self.defaults = {p.name: p.default for p in parameters}
        self.__signature__ = signature  # for inspect.signature, which torch.export calls
        self.guards = guards
        self._watch: Watch | None = None
        self.cls = type(owner)

    @property
    def __code__(self) -> CodeType:  # torch.export asks where a forward was written
        return type(self).__call__.__code__

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
        if not kwargs:  # the common call: tensors alone, by position
            variant = self.variants.get(self.arguments[: len(args)])
            if variant is not None and all(isinstance(value, Tensor) for value in args):
                if self._as_traced() and not _autocast(args[0]):
                    return variant.call(self.owner, *args)
        given = dict(zip(self.arguments, args, strict=False))
        variant = None
        if len(given) == len(args) and not (kwargs and given.keys() & kwargs.keys()):
            given.update(kwargs)
            variant = self._variant(given)
        if variant is None:
            as_written: Callable[..., Any] = getattr(type(self.owner), self.method)
            return as_written(self.owner, *args, **kwargs)
        return variant.call(self.owner, *[given[name] for name in variant.tensors])

    def _variant(self, given: dict[str, Any]) -> Variant | None:
        tensors = {name for name, value in given.items() if isinstance(value, Tensor)}
        for name, value in given.items():
            if name not in tensors and (
                name not in self.defaults or value is not self.defaults[name]
            ):
                return None
        for names, variant in self.variants.items():
            if len(names) == len(tensors) and tensors.issuperset(names):
                return variant if self._as_traced() and not _autocast(given[names[0]]) else None
        return None

    def _as_traced(self) -> bool:
        if type(self.owner) is not self.cls:
            return False
        if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
            return False
        if torch.compiler.is_compiling():
            # A class goes unwatched in torch.compile, which cannot always look into one.
            watched = (guard for guard in self.guards if not isinstance(guard.holder, type))
            return all(guard.holds() for guard in watched)
        if self._watch is None:
            self._watch = Watch(self.guards)
        return self._watch.holds()

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphForward:
        new = object.__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update(
            {
                name: value if name in _SHARED else copy.deepcopy(value, memo)
                for name, value in (self.__dict__ | {"_watch": None}).items()
            }
        )
        return new

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_watch": None}
        return {key: value for key, value in state.items() if key != "__signature__"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__signature__ = signature_of(self.owner, self.method)


# Variants take the owner as an argument, so copies share them.
_SHARED = ("variants", "__signature__")


def signature_of(owner: nn.Module, method: str) -> inspect.Signature:
    """Of the class's method, without self."""
    signature = inspect.signature(getattr(type(owner), method))
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _autocast(x: Tensor) -> bool:
    device = x.device.type
    return device != "meta" and torch.is_autocast_enabled(device)


def graph_of(module: nn.Module) -> GraphForward | None:
    """What the module runs, if it is fused."""
    found = [value for value in module.__dict__.values() if isinstance(value, GraphForward)]
    return found[0] if found else None
