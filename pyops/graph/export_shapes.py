"""For which sizes of its inputs an exported graph stands: as a function, and in words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.printers import PythonPrinter

from .simple_code import CannotTraceError

_READABLE = 24  # characters of a condition that is told
_SMALLEST = 2  # export takes it for granted that a size it left open is neither 0 nor 1


@dataclass
class Sizes:
    """``dims``: a number or a name for each dimension of each tensor. ``conditions``: Python."""

    dims: list[list[int | str]]
    conditions: list[str]

    def __post_init__(self) -> None:
        names = [[f"d{i}_{j}" for j in range(len(dim))] for i, dim in enumerate(self.dims)]
        first: dict[str, str] = {}  # where each name is first seen
        lines, tests = [], []
        for row, dims in zip(names, self.dims, strict=True):
            lines.append(f"[{', '.join(row)}]")
            for name, dim in zip(row, dims, strict=True):
                if isinstance(dim, str):
                    first.setdefault(dim, name)
                tests.append(f"{name} == {first[dim] if isinstance(dim, str) else dim}")
        bound = "; ".join(f"{symbol} = {name}" for symbol, name in first.items())
        tests = [t for t in tests if t.split(" == ")[0] != t.split(" == ")[1]]
        source = "def covers(shapes):\n"
        source += f"    [{', '.join(lines)}] = shapes\n"
        source += f"    {bound or 'pass'}\n"
        every = " and ".join(f"({one})" for one in (*tests, *self.conditions))
        source += f"    return {every or 'True'}\n"
        scope: dict[str, Any] = {"math": math}
        exec(compile(source, "<pyops.graph.sizes>", "exec"), scope)
        self._covers: Callable[[Sequence[Sequence[int]]], bool] = scope["covers"]

    def cover(self, shapes: Sequence[Sequence[int]]) -> bool:
        """Whether the graph stands for tensors of these shapes."""
        try:
            return self._covers(shapes)
        except ValueError:  # another number of dimensions
            return False
        except ZeroDivisionError:
            return False

    def __str__(self) -> str:
        rows = [f"[{', '.join(map(str, row))}]" for row in self.dims]
        told = [one for one in self.conditions if len(one) <= _READABLE]
        more = len(self.conditions) - len(told)
        told += [f"and {more} more conditions"] if more else []
        return ", ".join(rows) + "".join(f"; {one}" for one in told)

    def __getstate__(self) -> dict[str, Any]:
        return {"dims": self.dims, "conditions": self.conditions}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()


def sizes_of(program: ExportedProgram, tensors: Sequence[Tensor]) -> Sizes:
    """The sizes that ``program`` is for; ``tensors``: the fake inputs it was traced with.

    Raises:
        CannotTraceError: a size follows from another one in a way that is not looked at.
    """
    env = _shape_env(tensors)
    printer = PythonPrinter()
    names: dict[str, str] = {}
    dims: list[list[int | str]] = []
    conditions: list[str] = []
    for tensor in tensors:
        dims.append([])
        for size in tensor.shape:
            if isinstance(size, int):
                dims[-1].append(size)
                continue
            expression = env.simplify(size.node.expr)
            if expression.is_number:
                dims[-1].append(int(expression))
            elif expression.is_symbol:
                if expression.name not in names:
                    names[expression.name] = ascii_lowercase[len(names)]
                    conditions += _range(program, expression, names[expression.name])
                dims[-1].append(names[expression.name])
            else:
                raise CannotTraceError(f"a size of its inputs must be {expression}")
    for guard in env.guards if env is not None else ():
        expression = env.simplify(guard.expr)
        if expression in (True, False) or (expression.is_Boolean and not expression.free_symbols):
            continue
        free = {symbol.name for symbol in expression.free_symbols}
        if not free <= names.keys():
            raise CannotTraceError(f"its inputs must have {expression}")
        text = _renamed(printer.doprint(expression), names)
        if text not in conditions:
            conditions.append(text)
    return Sizes(dims, conditions)


def _shape_env(tensors: Sequence[Tensor]) -> Any:
    for tensor in tensors:
        for size in tensor.shape:
            if isinstance(size, torch.SymInt):
                env: ShapeEnv = size.node.shape_env
                return env
    return None


def _range(program: ExportedProgram, symbol: Any, name: str) -> list[str]:
    """Its bounds; export's are those that the model asks for."""
    low, high = _SMALLEST, None
    known = program.range_constraints.get(symbol)
    if known is not None:
        low = max(low, int(known.lower))
        high = int(known.upper) if known.upper.is_finite and known.upper < 2**62 else None
    return [f"{name} >= {low}"] + ([] if high is None else [f"{name} <= {high}"])


def _renamed(text: str, names: dict[str, str]) -> str:
    return re.sub(r"\b[su]\d+\b", lambda found: names[found[0]], text)
