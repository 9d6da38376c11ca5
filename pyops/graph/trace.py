"""One module's forward as an ``fx.Graph``, submodules as single calls, or the reason why not.

Symbolic tracing runs the forward once on proxies. ``simple_code.py`` makes sure that nothing is
frozen by that but what its guards watch; the truth of a value, its items and its length are refused
by the proxies themselves.
"""

from __future__ import annotations

import dis
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.proxy import Attribute, TraceError

from ..nn.packed_module import PackedModule
from . import calls
from .guards import Guard, runs_own_forward
from .simple_code import CannotTraceError, Reader

# fx patches nn.Module while it traces: one trace at a time, and other threads pass through.
_lock = threading.RLock()
_PURE_MODULES = ("torch", "_operator", "builtins", "math", "pyops")
# Whose modules return a tensor and leave their input as it is, unless they say ``inplace``.
_PURE_FILES = ("activation", "conv", "dropout", "linear", "normalization", "sparse")
_PURE_ACTIVATIONS = "transformers.activations"


def trace(module: nn.Module, method: str, tensors: Sequence[str]) -> tuple[fx.Graph, list[Guard]]:
    """The graph of ``module.method`` called with tensors for these arguments and no others.

    It stands for the method as long as the guards hold.

    Raises:
        CannotTraceError: with what the method does.
    """
    reader = Reader(module)
    reader.method(method)
    for guard in reader.guards:
        if not guard.holds():
            raise CannotTraceError(f"its {guard.name} has hooks, is in train mode or was patched")
    try:
        with _lock:
            graph = _Tracer(method, tensors).trace(module)
    except Exception as error:  # whatever the method raises on proxies
        raise CannotTraceError(first_sentence(error)) from error
    for node in graph.nodes:
        _check_node(node, module)
    return graph, reader.guards


class _Iterated(fx.Proxy):
    """A proxy that can be unpacked, into as many values as it has; fx would not look."""

    def __iter__(self) -> Iterator[fx.Proxy]:
        frame = sys._getframe(1)
        at = [one for one in dis.get_instructions(frame.f_code) if one.offset >= frame.f_lasti]
        if at[0].opname != "UNPACK_SEQUENCE":
            raise TraceError("it iterates over a tensor")
        arguments = (self, at[0].argval)
        values: Any = self.tracer.create_proxy("call_function", calls.unpack, arguments, {})
        return iter([values[i] for i in range(at[0].argval)])

    def __getattr__(self, name: str) -> Attribute:
        return _Attribute(self, name)


class _Attribute(_Iterated, Attribute):
    pass


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self, method: str, tensors: Sequence[str]) -> None:
        super().__init__()
        self.traced_func_name = method
        self.tensors = tensors
        self.thread = threading.get_ident()

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        proxies = [self.create_proxy("placeholder", name, (), {}) for name in self.tensors]
        names = self.tensors

        def call(*values: Any) -> Any:
            return root_fn(self.root, **dict(zip(names, values, strict=True)))

        return call, proxies

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Iterated(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def create_arg(self, a: Any) -> Any:
        if type(a) is Tensor:
            raise TraceError("it makes a tensor that depends on no input")
        return super().create_arg(a)


@dataclass
class Purity:
    """Which parts return a tensor and change none; looked up once for each."""

    known: dict[int, bool] = field(default_factory=dict)

    def __call__(self, module: nn.Module) -> bool:
        if id(module) not in self.known:
            self.known[id(module)] = False  # a part of itself is not looked into twice
            self.known[id(module)] = self._look(module)
        return self.known[id(module)]

    def _look(self, module: nn.Module) -> bool:
        home = type(module).__module__
        package, _, file = home.rpartition(".")
        if isinstance(module, PackedModule) or home == _PURE_ACTIVATIONS:
            return runs_own_forward(module)
        if package == "torch.nn.modules" and file in _PURE_FILES:
            return runs_own_forward(module) and not isinstance(module, nn.MultiheadAttention)
        tensors = [name for name, default in argument_names(module, "forward") if default is _NONE]
        try:
            graph, _ = trace(module, "forward", tensors[:1])
            self.check(graph, module)
        except CannotTraceError:
            return False
        return isinstance(next(iter(reversed(graph.nodes))).args[0], fx.Node)

    def check(self, graph: fx.Graph, owner: nn.Module) -> None:
        """Refuses a graph with a call that may do more, or one with arguments not looked at."""
        for node in graph.nodes:
            if node.op != "call_module":
                continue
            part = owner.get_submodule(str(node.target))
            name = type(part).__name__
            if len(node.args) != 1 or node.kwargs:
                raise CannotTraceError(f"it calls a {name} with more than one tensor")
            if not self(part):
                raise CannotTraceError(f"it calls a {name}, which may do more than return a tensor")


_NONE = inspect.Parameter.empty


def argument_names(module: nn.Module, method: str) -> list[tuple[str, Any]]:
    """(name, default) of the arguments that a call can name; ``Parameter.empty``: required."""
    signature = inspect.signature(getattr(type(module), method))
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(signature.parameters.values())[1:]
    return [(p.name, p.default) for p in parameters if p.kind in named]


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """An argument of a call, wherever it was given."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def hooked(module: nn.Module | None) -> bool:
    """Whether a call of the module runs more than its forward."""
    return module is not None and bool(module._forward_hooks or module._forward_pre_hooks)


def submodule(owner: nn.Module, node: fx.Node) -> nn.Module | None:
    """What the node calls, if it is a part that ``forward.py`` watches."""
    if node.op != "call_module":
        return None
    parent, _, name = str(node.target).rpartition(".")
    part = owner.get_submodule(parent)
    module = part._modules[name]
    watched = any(part is one for one in containers(owner))
    return module if watched and module is not None and runs_own_forward(module) else None


def containers(owner: nn.Module) -> Iterator[nn.Module]:
    """The owner, and the lists and dicts of modules whose items its own forward calls."""
    yield owner
    for child in owner.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from containers(child)


def _check_node(node: fx.Node, owner: nn.Module) -> None:
    """In-place changes; the second line behind ``simple_code.py`` for functions and methods."""
    name = getattr(node.target, "__name__", str(node.target))
    if node.op == "call_module":
        part = owner.get_submodule(str(node.target))
        if getattr(part, "inplace", False) and not _fresh(node.args[0], owner):
            raise CannotTraceError(f"it changes a tensor in place ({type(part).__name__})")
    elif node.op in ("call_function", "call_method"):
        if name.endswith("_") and not name.endswith("__"):
            raise CannotTraceError(f"it changes a tensor in place ({name})")
        if node.kwargs.get("inplace") or "out" in node.kwargs:
            raise CannotTraceError(f"it changes a tensor in place ({name})")
    if node.op == "call_function":
        home = str(getattr(node.target, "__module__", None) or "torch").partition(".")[0]
        if home not in _PURE_MODULES:
            raise CannotTraceError(f"it calls {name}, which a graph knows nothing about")


def _fresh(value: Any, owner: nn.Module) -> bool:
    """Whether a value is the result of an int8 layer that nothing else reads."""
    if not isinstance(value, fx.Node) or value.op != "call_module" or len(value.users) != 1:
        return False
    return isinstance(owner.get_submodule(str(value.target)), PackedModule)


def first_sentence(error: Exception) -> str:
    text = (str(error).strip() or "no message").splitlines()[0].partition(". ")[0]
    return text if isinstance(error, TraceError) else f"{type(error).__name__}: {text}"
