"""Whether a method is simple enough to trace, and what its result depends on beside its tensors.

Tracing runs a method once on proxies and freezes whatever Python decided meanwhile. So only code is
traced in which there is nothing to freeze but what can be compared at each later call: this module
reads the bytecode, of the method and of all that it reaches, and allows

* calls of parts of the module, of its own methods, of functions beside it, and of a list of torch
  functions and tensor methods without side effects;
* constants: of the module, its class, and the globals. Each becomes a ``Guard``;
* local variables, arithmetic, indexing, loops over parts; ``is`` with None alone.

Everything else is refused: stores to anything but locals, ``with``, ``try``, imports, other
attributes, other names. (``isinstance`` and the like are other names.)
"""

from __future__ import annotations

import dis
import math
import operator
import sys
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .guards import SIMPLE, Expect, Guard


class CannotTraceError(Exception):
    """The forward does something that a graph would not repeat."""


DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_STOOD_FOR = (nn.GELU, nn.LayerNorm, nn.RMSNorm, *DROPOUTS)  # parts that a fused call stands for
_SLOTS = ("_modules", "_parameters", "_buffers")
_MODULES = (torch, F, nn, math, operator)
_BUILTINS = set(
    "abs bool enumerate float int len list max min range reversed slice sum tuple zip".split()
)
_TORCH = """add bmm cat chunk clamp einsum exp flatten matmul mean mul permute pow relu rsqrt
sigmoid softmax split sqrt square stack sub sum tanh transpose unbind unsqueeze where"""
_FUNCTIONAL = """dropout gelu layer_norm linear log_softmax normalize pad relu rms_norm
scaled_dot_product_attention sigmoid silu softmax tanh"""
_FUNCTIONS = {
    *(getattr(torch, name) for name in _TORCH.split()),
    *(getattr(F, name) for name in _FUNCTIONAL.split()),
    *(math.sqrt, operator.add, operator.mul, operator.sub, operator.matmul),
}
_METHODS = set(
    """add amax bfloat16 bmm chunk clamp contiguous dim div exp expand expand_as flatten float half
    items log_softmax masked_fill matmul mean movedim mul neg numel permute pow relu repeat
    reshape rsqrt sigmoid size softmax split sqrt square squeeze sub sum tanh to transpose type_as
    unbind unflatten unsqueeze values var view view_as""".split()
)
_ATTRIBUTES = {"T", "device", "dtype", "mT", "ndim", "shape"}
if sys.version_info < (3, 11):  # loads a method that is called with keywords like an attribute
    _ATTRIBUTES |= _METHODS
_NO_EFFECT = {"CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "PUSH_NULL", "RESUME", "NOT_TAKEN"}
_REFUSED = {
    "STORE_ATTR": "it writes to an attribute",
    "STORE_SUBSCR": "it writes to an item",
    "STORE_SLICE": "it writes to an item",
    "STORE_GLOBAL": "it writes to a global",
    "BEFORE_WITH": "it has a with block",
    "BEFORE_ASYNC_WITH": "it has a with block",
    "SETUP_WITH": "it has a with block",
    "LOAD_SPECIAL": "it has a with block",
    "PUSH_EXC_INFO": "it has a try block",
    "SETUP_FINALLY": "it has a try block",
    "CONTAINS_OP": "it asks whether something contains a value",
    "FORMAT_VALUE": "it formats a value",
    "FORMAT_SIMPLE": "it formats a value",
    "FORMAT_WITH_SPEC": "it formats a value",
    "IMPORT_NAME": "it imports",
    "LOAD_SUPER_ATTR": "it calls super()",
    "LOAD_BUILD_CLASS": "it defines a class",
}
_UNKNOWN = object()  # a tensor, or what was computed from tensors


@dataclass
class Reader:
    """Reads what ``module.method`` runs; raises CannotTraceError, or collects ``guards``."""

    module: nn.Module
    guards: list[Guard] = field(default_factory=list)
    seen: set[CodeType] = field(default_factory=set)

    def method(self, name: str) -> None:
        if type(self.module) is nn.Sequential:  # calls its parts in turn
            return self._parts(self.module)
        cls = type(self.module)
        if cls.__getattr__ is not nn.Module.__getattr__ or "__getattribute__" in vars(cls):
            raise CannotTraceError("its class has its own way to look up attributes")
        if name in self.module.__dict__:
            raise CannotTraceError(f"{name} was replaced on the instance")
        self.guards.append(Guard(self.module, "__dict__", "training", False))
        self._of_class(name)

    def _of_class(self, name: str) -> Any:
        """A method, read as well, or a constant of the class."""
        owner = next((c for c in type(self.module).__mro__ if name in vars(c)), None)
        if owner is None:
            raise CannotTraceError(f"it reads self.{name}, which is not there")
        value = vars(owner)[name]
        self.guards.append(Guard(owner, "__dict__", name, value))
        if isinstance(value, FunctionType):
            self._function(value, is_method=True)
        elif isinstance(value, staticmethod) and isinstance(value.__func__, FunctionType):
            self._function(value.__func__, is_method=False)
        elif not isinstance(value, SIMPLE):
            raise CannotTraceError(f"it reads self.{name}, a {type(value).__name__}")
        return value

    def _function(self, function: FunctionType, is_method: bool) -> None:
        if function.__closure__ is not None:
            raise CannotTraceError(f"{function.__name__} is decorated, or a closure")
        code = function.__code__
        if code not in self.seen:
            self.seen.add(code)
            self_name = code.co_varnames[0] if is_method and code.co_argcount else None
            self._code(function, code, self_name)

    def _code(self, function: FunctionType, code: CodeType, self_name: str | None) -> None:
        current: Any = _UNKNOWN
        before = None
        for one in dis.get_instructions(code):
            if one.opname in _NO_EFFECT:
                continue
            if one.opname in _REFUSED or one.opname.startswith(("DELETE_", "MATCH_")):
                raise CannotTraceError(_REFUSED.get(one.opname, f"it uses {one.opname}"))
            if one.opname.startswith("INPLACE_") or (
                one.opname == "BINARY_OP" and one.argrepr.endswith("=")
            ):
                raise CannotTraceError("it changes a value in place")
            if one.opname == "IS_OP" and not _is_none(before):
                raise CannotTraceError("it asks whether two values are one")
            names = one.argval if isinstance(one.argval, tuple) else (one.argval,)
            stored = names[:1] if "LOAD" in one.opname else names  # STORE_FAST_LOAD_FAST
            if one.opname.startswith("STORE_") and (
                current is self.module or (self_name is not None and self_name in stored)
            ):
                raise CannotTraceError("it gives self another name")
            if one.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                current = self._global(function, str(one.argval))
            elif one.opname.startswith(("LOAD_FAST", "LOAD_DEREF", "STORE_FAST_LOAD")):
                current = self.module if names[-1] == self_name else _UNKNOWN
            elif one.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                called = one.opname == "LOAD_METHOD" or "NULL|self" in one.argrepr
                current = self._attribute(current, str(one.argval), called)
            else:
                current = _UNKNOWN
            before = one
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._code(function, constant, self_name)

    def _global(self, function: FunctionType, name: str) -> Any:
        if name not in function.__globals__:
            if name in _BUILTINS:
                return _UNKNOWN
            raise CannotTraceError(f"it uses {name}")
        value = function.__globals__[name]
        if not isinstance(value, ModuleType):  # an import stays
            self.guards.append(Guard(function, "__globals__", name, value))
        if isinstance(value, FunctionType) and value not in _FUNCTIONS:
            self._function(value, is_method=False)
        elif not _harmless(value):
            raise CannotTraceError(f"it uses {name}")
        return value

    def _attribute(self, of: Any, name: str, called: bool) -> Any:
        if of is self.module:
            return self._own(name)
        if isinstance(of, ModuleType):
            value = getattr(of, name)
            if not _harmless(value):
                raise CannotTraceError(f"it uses {of.__name__}.{name}")
            return value
        if of is not _UNKNOWN or name not in (_METHODS if called else _ATTRIBUTES):
            raise CannotTraceError(f"it uses the attribute {name}")
        return _UNKNOWN

    def _own(self, name: str) -> Any:
        """``self.name``: a part, a tensor of the module, a constant, or what its class has."""
        module = self.module
        for slot in _SLOTS:
            if name in module.__dict__[slot]:
                return self._slot(slot, name)
        if name not in module.__dict__:
            self.guards.append(Guard(module, "__dict__", name, Expect.NOTHING))
            return self._of_class(name)
        value = module.__dict__[name]
        if not (isinstance(value, SIMPLE) or _allowed(value)):
            raise CannotTraceError(f"it reads self.{name}, a {type(value).__name__}")
        self.guards.append(Guard(module, "__dict__", name, value))
        return value if _allowed(value) else _UNKNOWN

    def _slot(self, slot: str, name: str) -> Any:
        value = self.module.__dict__[slot][name]
        if isinstance(value, Tensor):  # the graph reads it, so it may change
            self.guards.append(Guard(self.module, slot, name, Expect.TENSOR))
            return _UNKNOWN
        self._part(self.module, name, value)
        if isinstance(value, (nn.ModuleList, nn.ModuleDict)):
            self._parts(value)
            return _UNKNOWN  # its items are parts, whose attributes are refused
        return value

    def _part(self, owner: nn.Module, name: str, part: nn.Module | None) -> None:
        slot = next(s for s in _SLOTS if name in owner.__dict__[s])
        self.guards.append(Guard(owner, slot, name, part))
        if isinstance(part, _STOOD_FOR):
            for key in ("approximate", "p", "eps", "normalized_shape"):
                if key in vars(part):
                    self.guards.append(Guard(part, "__dict__", key, vars(part)[key]))

    def _parts(self, container: nn.Module) -> None:
        for name, part in container._modules.items():
            self._part(container, name, part)
            if isinstance(part, (nn.ModuleList, nn.ModuleDict)):
                self._parts(part)
        self.guards.append(Guard(container, "number of parts", "", len(container._modules)))


def _is_none(instruction: dis.Instruction | None) -> bool:
    if instruction is None or instruction.opname != "LOAD_CONST":
        return False
    return instruction.argval is None


def _harmless(value: Any) -> bool:
    return isinstance(value, SIMPLE) or any(value is m for m in _MODULES) or _allowed(value)


def _allowed(value: Any) -> bool:
    try:
        return value in _FUNCTIONS
    except TypeError:  # not hashable
        return False
