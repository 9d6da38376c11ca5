"""Whether a method's code asks for the type of a value, which a proxy would answer wrongly.

A static look at the bytecode of the method and of what it names: methods of its class, functions of
its module and of modules that it uses. torch's own functions take proxies as they are meant to.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

_ASKING = {"isinstance", "issubclass", "type", "is_tensor"}


def asks_for_types(cls: type, method: str) -> str | None:
    """The name of the asking function (``isinstance``), or None."""
    seen: set[CodeType] = set()
    pending = list(_methods(cls, method))
    while pending:
        function = pending.pop()
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        names, attributes = _named(function.__code__)
        asking = (names | attributes & {"is_tensor"}) & _ASKING
        if asking:
            return min(asking)
        pending.extend(_reached(cls, function, names, attributes))
    return None


def _methods(cls: type, name: str) -> Iterator[FunctionType]:
    """Of every class that defines it, because of ``super()``; with what decorators wrap."""
    for base in cls.__mro__:
        yield from _functions(vars(base).get(name))


def _functions(value: Any) -> Iterator[FunctionType]:
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, FunctionType) and not _of_torch(value.__module__):
        yield value
        for cell in value.__closure__ or ():
            if isinstance(cell.cell_contents, FunctionType):
                yield from _functions(cell.cell_contents)


def _of_torch(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == "torch"


def _named(code: CodeType) -> tuple[set[str], set[str]]:
    """Global names and attribute names that the code loads, nested functions included."""
    names, attributes = set(), set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(str(instruction.argval))
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            attributes.add(str(instruction.argval))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner_names, inner_attributes = _named(constant)
            names |= inner_names
            attributes |= inner_attributes
    return names, attributes


def _reached(
    cls: type, function: FunctionType, names: set[str], attributes: set[str]
) -> Iterator[FunctionType]:
    for name in attributes:
        yield from _methods(cls, name)
    for name in names:
        value = function.__globals__.get(name)
        yield from _functions(value)
        if isinstance(value, ModuleType) and not _of_torch(value.__name__):
            for attribute in attributes:
                yield from _functions(vars(value).get(attribute))
