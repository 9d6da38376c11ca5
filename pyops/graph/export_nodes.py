"""The aten graph of an exported model, as a graph of the calls that eager code would make.

That is the form that ``trace.py`` yields: parts are called by their path, parameters are read from
the part that has them, and what ``patterns.py`` looks for is called by its usual name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from .simple_code import CannotTraceError

# By overload. Functions and methods take the same arguments as the overload does.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "gelu.default": F.gelu,
    "relu.default": F.relu,
    "silu.default": F.silu,
    "linear.default": F.linear,
    "rms_norm.default": F.rms_norm,
    "scaled_dot_product_attention.default": F.scaled_dot_product_attention,
    "embedding.default": torch.embedding,
    "matmul.default": torch.matmul,
    "bmm.default": torch.bmm,
    "cat.default": torch.cat,
    "softmax.int": torch.softmax,
    "tanh.default": torch.tanh,
    "sigmoid.default": torch.sigmoid,
    "rsqrt.default": torch.rsqrt,
    "sin.default": torch.sin,
    "cos.default": torch.cos,
    "neg.default": operator.neg,
}
_OPERATORS: dict[str, Callable[..., Any]] = {  # of two values and no more
    "add.Tensor": operator.add,
    "sub.Tensor": operator.sub,
    "mul.Tensor": operator.mul,
    "div.Tensor": operator.truediv,
    "__and__.Tensor": operator.and_,
    "__or__.Tensor": operator.or_,
    "pow.Tensor_Scalar": operator.pow,
}
_METHODS = {
    "view.default": "view",
    "reshape.default": "reshape",
    "flatten.using_ints": "flatten",
    "transpose.int": "transpose",
    "permute.default": "permute",
    "unsqueeze.default": "unsqueeze",
    "squeeze.dim": "squeeze",
    "expand.default": "expand",
    "select.int": "select",
    "contiguous.default": "contiguous",
    "split.Tensor": "split",
    "chunk.default": "chunk",
    "unbind.int": "unbind",
    "mean.dim": "mean",
    "detach.default": "detach",
    "lift_fresh_copy.default": "clone",
    "sym_size.int": "size",
}
_NOT_NEEDED = ("_assert_tensor_metadata.default", "sym_constrain_range_for_size.default")
_LITERAL = ("aten.lift_fresh_copy.default", "aten.lift_fresh.default")  # of torch.tensor(3.0)
_END = 2**63 - 1
CONSTANT = "/constant"  # no path of a part begins with a slash
LEAF = "pyops_capture.leaf.default"


def normal_form(
    program: ExportedProgram, paths: list[str], prefix: str, constants: dict[str, Tensor]
) -> fx.Graph:
    """A graph of one placeholder for each input tensor, which returns a tuple of tensors.

    ``paths``: of the leaf parts, by their number. ``prefix``: of the model in the program.
    ``constants``: gets the tensors that the forward makes itself, read as ``CONSTANT.name``.

    Raises:
        CannotTraceError: the model changes a tensor in place, or a size depends on data.
    """
    return _Builder(program, paths, prefix, constants).build()


class _Builder:
    def __init__(
        self, program: ExportedProgram, paths: list[str], prefix: str, constants: dict[str, Tensor]
    ) -> None:
        self.program = program
        self.paths = paths
        self.prefix = prefix
        self.constants = constants
        self.graph = fx.Graph()
        self.new: dict[fx.Node, Any] = {}

    def build(self) -> fx.Graph:
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._add(node, self._input(node, specs[node.name]))
        self.graph.output(tuple(self._calls(self.program.graph_module)))
        drop_unread(self.graph)
        return self.graph

    def _calls(self, module: torch.nn.Module) -> list[Any]:
        """The calls of one graph of the program; what it returns."""
        for node in module.graph.nodes:  # type: ignore[union-attr]
            if free_unbacked_symbols(node.meta.get("val")):
                raise CannotTraceError("a size depends on the values of a tensor")
            if node.op == "call_function":
                self._add(node, self._call(node))
            elif node.op == "output":
                return [self._map(one) for one in node.args[0]]
            elif node.op == "get_attr":  # a graph in the graph
                self.new[node] = getattr(module, str(node.target))
        raise AssertionError("a graph without an output")

    def _add(self, node: fx.Node, made: Any) -> None:
        if isinstance(made, fx.Node) and "val" not in made.meta:
            made.meta["val"] = node.meta.get("val")
        self.new[node] = made

    def _block(self, name: str, args: tuple[Any, ...]) -> list[Any]:
        """A block of code in a mode which it is in anyway: gradients and autocast are off."""
        on = {"wrap_with_set_grad_enabled": 0, "wrap_with_autocast": 2}.get(name)
        if on is None or args[on]:
            raise CannotTraceError(f"it has a block of its own ({name})")
        at = next(i for i, one in enumerate(args) if isinstance(one, torch.nn.Module))
        inner = [node for node in args[at].graph.nodes if node.op == "placeholder"]
        self.new.update(zip(inner, args[at + 1 :], strict=True))
        return self._calls(args[at])

    def _map(self, value: Any) -> Any:
        return fx.node.map_arg(value, lambda node: self.new[node])

    def _input(self, node: fx.Node, spec: Any) -> fx.Node | None:
        if spec.kind is InputKind.USER_INPUT:
            return self.graph.placeholder(node.name)
        target = str(spec.target)
        if spec.kind is InputKind.CONSTANT_TENSOR and not target.startswith(self.prefix):
            if any(str(user.target) not in _LITERAL for user in node.users):
                raise CannotTraceError("it uses a tensor that is not part of the model")
            name = f"literal_{len(self.constants)}"
            self.constants[name] = self.program.constants[target].detach().clone()
            return self.graph.get_attr(f"{CONSTANT}.{name}")
        if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            raise CannotTraceError(f"it takes a {spec.kind}")
        return self.graph.get_attr(flat(target.removeprefix(self.prefix)))

    def _call(self, node: fx.Node) -> Any:
        name = str(node.target).removeprefix("aten.")
        args, kwargs = self._map(node.args), self._map(node.kwargs)
        if name == LEAF:
            return self.graph.call_module(flat_module(self.paths[args[1]]), (args[0],))
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return self._block(name, args)
        if node.target is operator.getitem and isinstance(args[0], list):
            return args[0][args[1]]  # of what a block returns
        if name in _NOT_NEEDED:
            return None
        if _identity(name, node):
            return args[0]
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            raise CannotTraceError(f"it changes a tensor in place ({name})")
        if name in _OPERATORS and len(args) == 2 and not kwargs:
            return self.graph.call_function(_OPERATORS[name], args)
        if name in _FUNCTIONS:
            return self.graph.call_function(_FUNCTIONS[name], args, kwargs)
        if name in _METHODS:
            return self.graph.call_method(_METHODS[name], args, kwargs)
        if name == "layer_norm.default":  # the last argument is for cudnn
            return self.graph.call_function(F.layer_norm, args[:5], kwargs)
        if name == "to.dtype" and len(args) == 2 and not kwargs:
            return self.graph.call_method("to", args)
        if name == "slice.Tensor":
            return self._slice(*args)
        assert callable(node.target)
        return self.graph.call_function(node.target, args, kwargs)

    def _slice(
        self, x: fx.Node, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
    ) -> fx.Node:
        dim = dim if dim >= 0 else dim + x.meta["val"].dim()
        at = slice(start or None, None if end == _END else end, None if step == 1 else step)
        return self.graph.call_function(operator.getitem, (x, (*[slice(None)] * dim, at)))


def drop_unread(graph: fx.Graph) -> None:
    """Erases what nothing reads; no call of such a graph does more than return a value."""
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


def _identity(name: str, node: fx.Node) -> bool:
    """Whether the node returns what it is given: the types of all tensors are known."""
    if name in ("alias.default", "detach_.default"):  # detach_: of a literal, which has no gradient
        return True
    if name == "dropout.default":
        return node.args[2] is False
    if name == "slice.Tensor":
        ends = (*node.args[2:4], *(0, _END)[len(node.args[2:4]) :])
        return ends == (0, _END) and len(node.args) < 5
    source = node.args[0] if node.args else None
    plain = len(node.args) <= {"to.dtype": 2, "to.device": 3, "to.dtype_layout": 1}.get(name, 0)
    plain = plain and node.kwargs.keys() <= {"dtype", "layout", "device"}
    if isinstance(source, fx.Node) and (plain or name == "type_as.default"):
        before, after = source.meta["val"], node.meta["val"]
        kinds = [(t.dtype, t.device, t.layout) for t in (before, after)]
        return kinds[0] == kinds[1]
    return False


def flat(target: str) -> str:
    """``layers.0.norm.weight`` as ``layers/0/norm.weight``: an attribute of one of many parts."""
    path, _, name = target.rpartition(".")
    return f"{flat_module(path)}.{name}"


def flat_module(path: str) -> str:
    """The name of a part among all parts: dots would make it a part of a part."""
    return path.replace(".", "/") or "/"


def path_of(name: str) -> str:
    """The inverse of ``flat_module``, also inside a sentence."""
    return "" if name == "/" else name.replace("/", ".")
