"""Norms over the last dimension, in any of the forms in which a graph may hold one.

``nn.LayerNorm``, ``nn.RMSNorm``, their functions, and RMSNorm written out: in the graph, or in the
forward of a module of any class (as ``LlamaRMSNorm``), which is traced to see what it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..ops.int8_gemm_rows_reference import LAYER_NORM, RMS_NORM
from .guards import Guard
from .simple_code import CannotTraceError
from .trace import argument, submodule, trace

# What torch takes where no eps is given, whatever the dtype: its norms compute in float32.
_RMS_EPS = torch.finfo(torch.float32).eps
_CASTS = ("to", "type_as", "float")


@dataclass(frozen=True)
class Norm:
    """``module``: its path, or None where ``weight`` and ``bias`` are nodes and ``form`` says how
    ``calls.py`` computes it step by step. ``kind``, ``eps``: as in a row program.
    """

    x: fx.Node
    width: int
    kind: int
    eps: float
    given: int
    module: str | None = None
    weight: fx.Node | None = None
    bias: fx.Node | None = None
    form: str = ""

    @property
    def name(self) -> str:
        return "LayerNorm" if self.kind == LAYER_NORM else "RMSNorm"


def norm_of(node: fx.Node, owner: nn.Module, guards: list[Guard]) -> Norm | None:
    """The norm that this node computes; it is one for as long as the guards that are added hold."""
    if node.op == "call_module":
        return _of_module(node, owner, guards)
    if node.target is F.layer_norm or node.target is F.rms_norm:
        return _of_function(node)
    return _written(node, owner)


def _of_module(node: fx.Node, owner: nn.Module, guards: list[Guard]) -> Norm | None:
    module = submodule(owner, node)
    if module is None or len(node.args) != 1 or node.kwargs:
        return None
    x, path = node.args[0], str(node.target)
    if not isinstance(x, fx.Node):
        return None
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        if type(module) not in (nn.LayerNorm, nn.RMSNorm) or len(module.normalized_shape) != 1:
            return None
        kind = LAYER_NORM if isinstance(module, nn.LayerNorm) else RMS_NORM
        eps = _RMS_EPS if module.eps is None else module.eps
        slots = [module._parameters.get(name) is not None for name in ("weight", "bias")]
        given = slots[0] + 2 * slots[1]
        return Norm(x, module.normalized_shape[0], kind, eps, given, path)
    weight = module._parameters.get("weight")
    if weight is None or weight.dim() != 1 or len(module._parameters) != 1:
        return None
    try:
        inner, found = trace(module, "forward", [_argument_name(module)])
    except (CannotTraceError, LookupError):
        return None
    result = next(iter(reversed(inner.nodes))).args[0]
    norm = _written(result, module) if isinstance(result, fx.Node) else None
    if norm is None or norm.x.op != "placeholder" or getattr(norm.weight, "target", "") != "weight":
        return None
    guards.extend(found)
    return Norm(x, norm.width, RMS_NORM, norm.eps, 1, path)


def _argument_name(module: nn.Module) -> str:
    code = type(module).forward.__code__
    return code.co_varnames[1] if code.co_argcount == 2 else ""


def _of_function(node: fx.Node) -> Norm | None:
    layer = node.target is F.layer_norm
    names = ("input", "normalized_shape", "weight", *(("bias",) if layer else ()), "eps")
    values = {name: argument(node, i, name, None) for i, name in enumerate(names)}
    x, shape, weight, bias = (
        values.get(n) for n in ("input", "normalized_shape", "weight", "bias")
    )
    eps = values["eps"] if values["eps"] is not None else (1e-5 if layer else _RMS_EPS)
    if not isinstance(x, fx.Node) or not isinstance(eps, float):
        return None
    if not isinstance(shape, (tuple, list)) or len(shape) != 1 or not isinstance(shape[0], int):
        return None
    if any(value is not None and not isinstance(value, fx.Node) for value in (weight, bias)):
        return None
    given = (weight is not None) + 2 * (bias is not None)
    kind, form = (LAYER_NORM, "layer_norm") if layer else (RMS_NORM, "rms_norm")
    return Norm(x, shape[0], kind, eps, given, None, weight, bias, form)


def _written(node: fx.Node, owner: nn.Module) -> Norm | None:
    """``weight * cast(h * rsqrt(mean(h ** 2) + eps))`` of ``h``, x or x cast to float32."""
    for weight, scaled in _products(node):
        tensor = _parameter(weight, owner)
        if tensor is None or tensor.dim() != 1:
            continue
        cast_back = _name(scaled) in _CASTS
        inner = scaled.args[0] if cast_back else scaled
        for h, root in _products(inner):
            eps = _eps_of(root, h)
            if eps is None:
                continue
            upcast = _is_upcast(h)
            x = h.args[0] if upcast else h
            # A cast of the result belongs to one of the input: else it is a step of its own.
            if isinstance(x, fx.Node) and upcast == cast_back and _back_to(scaled, inner, x):
                form = "written upcast" if upcast else "written"
                return Norm(x, tensor.shape[0], RMS_NORM, eps, 1, None, weight, None, form)
    return None


def _back_to(node: fx.Node, inner: Any, x: fx.Node) -> bool:
    """Whether a cast between the two is to x's dtype."""
    if node is inner:
        return True
    to = argument(node, 1, "dtype", argument(node, 1, "other", None))
    if _name(node) == "type_as":
        return to is x
    if isinstance(to, torch.dtype):  # of a model that was exported, where types are known
        return "val" in x.meta and x.meta["val"].dtype == to
    return _name(node) == "to" and _name(to) == "getattr" and to.args == (x, "dtype")


def _is_upcast(node: fx.Node) -> bool:
    if _name(node) == "to":
        return argument(node, 1, "dtype", None) is torch.float32
    return _name(node) == "float"


def _eps_of(root: Any, h: fx.Node) -> float | None:
    """eps where ``root`` is ``rsqrt(mean(h ** 2, -1, keepdim=True) + eps)``."""
    total: Any = root.args[0] if _name(root) == "rsqrt" else None
    if _name(total) != "add" or len(total.args) != 2 or total.kwargs:
        return None
    for mean, eps in (total.args, total.args[::-1]):
        if not isinstance(eps, (int, float)) or _name(mean) != "mean":
            continue
        last = argument(mean, 1, "dim", None) in (-1, [-1], (-1,))
        if last and argument(mean, 2, "keepdim", False) is True and "dtype" not in mean.kwargs:
            return float(eps) if _is_square(mean.args[0], h) else None
    return None


def _is_square(node: Any, of: fx.Node) -> bool:
    if _name(node) == "mul":
        return node.args == (of, of)
    power = _name(node) == "pow" and argument(node, 1, "exponent", None) == 2
    return node.args[0] is of and (power or _name(node) == "square")


def _products(node: Any) -> list[tuple[fx.Node, fx.Node]]:
    """Both orders of the operands of a product of two nodes."""
    if _name(node) != "mul" or len(node.args) != 2 or node.kwargs:
        return []
    a, b = node.args
    nodes = isinstance(a, fx.Node) and isinstance(b, fx.Node)
    return [(a, b), (b, a)] if nodes else []


def _name(node: Any) -> str:
    """Of the function or method that a node calls, of operator, torch or a tensor."""
    if not isinstance(node, fx.Node) or node.op not in ("call_function", "call_method"):
        return ""
    return str(getattr(node.target, "__name__", node.target))


def _parameter(node: fx.Node, owner: nn.Module) -> torch.Tensor | None:
    if node.op != "get_attr":
        return None
    path, _, name = str(node.target).rpartition(".")
    return owner.get_submodule(path)._parameters.get(name)
