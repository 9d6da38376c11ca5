"""What a captured model runs instead of its forward, and when it does not."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils import _pytree as pytree

from .export_nodes import CONSTANT
from .export_shapes import Sizes
from .export_watch import Watch
from .forward import GraphForward, Variant, signature_of
from .guards import SIMPLE
from .regions import Notes

logger = logging.getLogger("pyops")
_NOTHING = object()


@dataclass(frozen=True)
class Leaf:
    """A tensor's place in a flat list of tensors, with its type."""

    index: int
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Tree:
    """A value that a call takes or returns: its structure, and a Leaf or a constant at each end."""

    leaves: list[Any]
    spec: Any

    def rebuild(self, tensors: Any) -> Any:
        """The value, with these tensors in it."""
        full = [tensors[one.index] if isinstance(one, Leaf) else one for one in self.leaves]
        return pytree.tree_unflatten(full, self.spec)

    def tensors_of(self, value: Any) -> list[Tensor] | None:
        """The tensors in a value of this structure with the same constants; None for others."""
        leaves, spec = ([value], None) if type(value) is Tensor else pytree.tree_flatten(value)
        if len(leaves) != len(self.leaves) or (spec is not None and spec != self.spec):
            return None
        tensors = []
        for leaf, expected in zip(leaves, self.leaves, strict=True):
            if not isinstance(expected, Leaf):
                if type(leaf) is not type(expected) or leaf != expected:
                    return None
            elif type(leaf) is not Tensor:
                return None
            else:
                tensors.append(leaf)
        return tensors

    def __getstate__(self) -> tuple[list[Any], Any]:
        """A spec of torch's warns when it is pickled."""
        return self.leaves, _packed(self.spec)

    def __setstate__(self, state: tuple[list[Any], Any]) -> None:
        object.__setattr__(self, "leaves", state[0])
        object.__setattr__(self, "spec", _unpacked(state[1]))


def _packed(spec: Any) -> Any:
    if spec.is_leaf():
        return None
    children = spec.children() if hasattr(spec, "children") else spec.children_specs
    return spec.type, spec.context, [_packed(child) for child in children]


def _unpacked(state: Any) -> Any:
    if state is None:
        return pytree.tree_structure(0)
    kind, context, children = state
    return pytree.TreeSpec(kind, context, [_unpacked(child) for child in children])


@dataclass
class Captured:
    """One graph: for which sizes, what it runs, and how its tensors become the result."""

    sizes: Sizes
    variant: Variant
    output: Tree


@dataclass
class Arguments:
    """The arguments of the example call by name; every other one must be at its default."""

    trees: dict[str, Tree]
    names: tuple[str, ...] = ()  # those that a call may give by position
    defaults: dict[str, Any] = field(default_factory=dict)
    returned: bool = False  # whether an input is part of the result, so that it must not be copied

    def __post_init__(self) -> None:
        self.leaves = [
            leaf for tree in self.trees.values() for leaf in tree.leaves if isinstance(leaf, Leaf)
        ]

    def tensors_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor] | str:
        """The tensors of a call like the example; what is different in any other call."""
        given = dict(zip(self.names, args, strict=False))
        if len(given) < len(args) or (kwargs and given.keys() & kwargs.keys()):
            return "the call has other arguments than the example"
        given.update(kwargs)
        tensors: list[Tensor] = []
        for name, tree in self.trees.items():
            value = given.pop(name, _NOTHING)
            found = None if value is _NOTHING else tree.tensors_of(value)
            if found is None:
                return f"{name} is not what it is in the example"
            tensors += found
        for name, value in given.items():
            if name not in self.defaults or not same(value, self.defaults[name]):
                return f"{name} is given, which it is not in the example"
        for i, (tensor, leaf) in enumerate(zip(tensors, self.leaves, strict=True)):
            if tensor.dtype != leaf.dtype or tensor.device != leaf.device:
                return "a tensor has another dtype or device than in the example"
            if not tensor.is_contiguous():
                if (
                    tensor.is_floating_point() or self.returned
                ):  # its strides may show in the result
                    return "a tensor is not contiguous"
                tensors[i] = tensor.contiguous()
        return tensors


def same(value: Any, other: Any) -> bool:
    """One object, or constants of one type that are equal."""
    simple = isinstance(value, SIMPLE) and type(value) is type(other)
    return value is other or (simple and bool(value == other))


class CapturedForward:
    """Takes the place of a model's forward, on the instance.

    A call like the example, of sizes that a graph is for, runs that graph. Any other runs
    ``as_written``: the graph of the module alone where it has one, or the method of its class. So
    does every call under autocast, in torch.compile, export and jit.trace, with an input or a
    parameter that requires grad, and after something has changed that the model reads
    (``export_watch.py``). What kept a call from its graph is logged, each reason once.
    """

    is_graph = True  # tells it from a forward that somebody else put on the instance

    def __init__(
        self, owner: nn.Module, arguments: Arguments, graphs: list[Captured], watch: Watch
    ) -> None:
        self.owner = owner
        self.arguments = arguments
        self.graphs = graphs
        self.watch = watch
        self.constants: dict[str, Tensor] = {}
        self.parts: dict[str, nn.Module] = {}  # what the graphs call, by their names there
        self.example: Any = None  # the signature of the example, for ``save``
        self.fallback: GraphForward | None = None
        self.cls = type(owner)
        self.logged: set[str] = set()
        self._scope: SimpleNamespace | None = None
        self.__signature__ = signature_of(owner, "forward")

    @property
    def __code__(self) -> CodeType:  # torch.export asks where a forward was written
        return type(self).__call__.__code__

    @property
    def notes(self) -> Notes:
        """What was fused, by the path of the layer: in the first graph, which all are like."""
        return self.graphs[0].variant.notes

    def describe(self) -> str:
        """For which calls there is a graph."""
        kinds = ", ".join(f"{name}" for name in self.arguments.trees)
        sizes = " or ".join(str(graph.sizes) for graph in self.graphs)
        return f"{self.cls.__name__}.forward runs as one graph for {kinds} of {sizes}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
            return self.as_written(*args, **kwargs)
        tensors = self.arguments.tensors_of(args, kwargs)
        graph = tensors if isinstance(tensors, str) else self._graph(tensors)
        if isinstance(graph, str):
            if graph not in self.logged:
                self.logged.add(graph)
                logger.info("%s runs module by module: %s", self.cls.__name__, graph)
            return self.as_written(*args, **kwargs)
        return graph.output.rebuild(graph.variant.call(self._scope or self._bind(), *tensors))

    def as_written(self, *args: Any, **kwargs: Any) -> Any:
        """The forward without the graphs of the whole model."""
        if self.fallback is not None:
            return self.fallback(*args, **kwargs)
        forward: Callable[..., Any] = type(self.owner).forward
        return forward(self.owner, *args, **kwargs)

    def _graph(self, tensors: list[Tensor]) -> Captured | str:
        """The graph for these tensors, or why there is none."""
        shapes = [tensor.shape for tensor in tensors]
        found = next((graph for graph in self.graphs if graph.sizes.cover(shapes)), None)
        if found is None:
            return "there is no graph for these sizes"
        if torch.is_grad_enabled() and (
            any(tensor.requires_grad for tensor in tensors) or self.watch.requires_grad()
        ):
            return "an input or a parameter requires grad"
        devices = {tensor.device.type for tensor in tensors}
        if any(device != "meta" and torch.is_autocast_enabled(device) for device in devices):
            return "autocast is on"
        if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
            return "all modules have a forward hook"
        return self.watch.changed() or found

    def _bind(self) -> SimpleNamespace:
        """What the graphs call ``self``: every part by a name of its own, found in one step."""
        scope = SimpleNamespace(**self.parts, **{CONSTANT: SimpleNamespace(**self.constants)})
        self._scope = scope
        return scope

    def __deepcopy__(self, memo: dict[int, Any]) -> CapturedForward:
        new = object.__new__(type(self))
        memo[id(self)] = new
        state = self.__getstate__()
        new.__dict__.update(
            {
                name: value if name in _SHARED else copy.deepcopy(value, memo)
                for name, value in state.items()
            }
        )
        new.__dict__["__signature__"] = self.__signature__
        return new

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_scope": None, "logged": set()}
        del state["__signature__"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__signature__ = signature_of(self.owner, "forward")


# Graphs take the parts as an argument, so copies share them.
_SHARED = ("graphs", "arguments", "example")
