"""One module's forward as an ``fx.Graph``, submodules as single calls, or the reason why not.

Symbolic tracing runs the forward once on proxies, so whatever Python decides while it runs is
frozen. Here everything that could freeze wrongly is refused: asking for a value's type
(``inspect_code.py``) or truth, writing to an attribute, tensors made from nothing, in-place changes
of what others see. What is left depends on which arguments are tensors and on the module's
attributes; ``forward.py`` compares both at every call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError

from ..nn.packed_module import PackedModule
from .inspect_code import asks_for_types

_PURE_MODULES = ("torch", "_operator", "builtins", "math")


class CannotTraceError(Exception):
    """The forward does something that a graph would not repeat."""


def trace(module: nn.Module, method: str, tensors: Sequence[str]) -> fx.Graph:
    """The graph of ``module.method`` called with tensors for these arguments and no others.

    Raises:
        CannotTraceError: with what the forward does.
    """
    asks = asks_for_types(type(module), method)
    if asks is not None:
        raise CannotTraceError(f"it asks for the type of a value ({asks})")
    before = _state(module)
    tracer = _Tracer(method, tensors)
    try:
        graph = tracer.trace(module)
    except Exception as error:  # whatever the forward raises on proxies
        raise CannotTraceError(_first_sentence(error)) from error
    finally:
        changed = [name for name, value in _state(module).items() if before.get(name) != value]
        module.__dict__.update(tracer.attributes)
    if changed:
        raise CannotTraceError(f"it writes to self.{changed[0]}")
    for node in graph.nodes:
        _check_node(node)
    return graph


class _Proxy(fx.Proxy):
    def _in_place(self, *_: Any) -> Any:
        raise TraceError("it changes a tensor in place")

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __iand__ = __ior__ = __ixor__ = _in_place
    __imatmul__ = __ifloordiv__ = __imod__ = __ipow__ = __setitem__ = _in_place


class _Tracer(fx.Tracer):
    def __init__(self, method: str, tensors: Sequence[str]) -> None:
        super().__init__()
        self.traced_func_name = method
        self.tensors = tensors
        self.attributes: dict[str, Any] = {}

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        self.attributes = dict(self.root.__dict__)
        proxies = [self.create_proxy("placeholder", name, (), {}) for name in self.tensors]
        names = self.tensors

        def call(*values: Any) -> Any:
            return root_fn(self.root, **dict(zip(names, values, strict=True)))

        return call, proxies

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if not never_none(m):
            raise TraceError(f"it calls a {type(m).__name__}, which may return None")
        return super().call_module(m, forward, args, kwargs)

    def create_arg(self, a: Any) -> Any:
        made_here = type(a) is Tensor and a not in self.tensor_attrs
        if made_here and not any(a is buffer for buffer in self.root.buffers()):
            raise TraceError("it makes a tensor that depends on no input")
        return super().create_arg(a)


def never_none(module: nn.Module) -> bool:
    """Whether a call surely returns something: ``is None`` is what a proxy cannot intercept."""
    if isinstance(module, PackedModule) or type(module).__module__.startswith("torch.nn.modules."):
        return True
    tensors = argument_names(module, "forward")
    try:
        graph = trace(module, "forward", [name for name, default in tensors if default is _NONE])
    except CannotTraceError:
        return False
    return isinstance(next(reversed(graph.nodes)).args[0], fx.Node)


_NONE = inspect.Parameter.empty


def argument_names(module: nn.Module, method: str) -> list[tuple[str, Any]]:
    """(name, default) of the arguments that a call can name; ``Parameter.empty``: required."""
    signature = inspect.signature(getattr(type(module), method))
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(signature.parameters.values())[1:]
    return [(p.name, p.default) for p in parameters if p.kind in named]


def containers(owner: nn.Module) -> Iterator[nn.Module]:
    """The owner, and the lists and dicts of modules whose items its own forward calls."""
    yield owner
    for child in owner.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from containers(child)


def _state(module: nn.Module) -> dict[str, Any]:
    """What a forward may write to: attributes, by identity; containers also by length."""
    state: dict[str, Any] = {}
    for name, value in module.__dict__.items():
        sized = isinstance(value, (list, dict, set))
        state[name] = (id(value), len(value) if sized else 0)
        if name in ("_parameters", "_buffers", "_modules"):
            state.update({key: id(item) for key, item in value.items()})
    return state


def _check_node(node: fx.Node) -> None:
    if node.op == "call_method":
        name = str(node.target)
        if name.endswith("_") and not name.endswith("__"):
            raise CannotTraceError(f"it changes a tensor in place ({name})")
    if node.op == "call_function":
        home = str(getattr(node.target, "__module__", None) or "torch").partition(".")[0]
        name = getattr(node.target, "__name__", str(node.target))
        if home not in _PURE_MODULES:
            raise CannotTraceError(f"it calls {name}, which a graph knows nothing about")
        if name.endswith("_") and not name.endswith("__"):
            raise CannotTraceError(f"it changes a tensor in place ({name})")
        if node.kwargs.get("inplace") or "out" in node.kwargs:
            raise CannotTraceError(f"it changes a tensor in place ({name})")


def _first_sentence(error: Exception) -> str:
    text = (str(error).strip() or "no message").splitlines()[0].partition(". ")[0]
    return text if isinstance(error, TraceError) else f"{type(error).__name__}: {text}"
