"""What is compiled, which kernels there are, and which one runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import isa
from .isa import _C as _C

MANY_ROWS = 1 << 30


@dataclass(frozen=True)
class Implementation:
    """One row of ``csrc/cpu/<op>/kernels.inc``.

    ``available``: this CPU can run it. ``test_only``: never chosen, reached by ``force`` alone.
    ``min_rows``: with fewer rows of input the next kernel of the same layout runs.
    """

    name: str
    isa: str
    layout: str
    available: bool
    test_only: bool
    min_rows: int = 1


def _recorded() -> dict[str, str]:
    path = Path(__file__).with_name("_build_info.json")
    try:
        recorded: dict[str, str] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return recorded


def compiled() -> bool:
    """Whether the compiled module is loaded."""
    return _C is not None


def why_not_compiled() -> str | None:
    """Why the compiled module is absent; None where it is loaded."""
    if _C is not None:
        return None
    recorded = _recorded()
    if not recorded.get("compiled", True):
        return str(recorded.get("reason"))
    return isa.import_error


def build_info() -> dict[str, str]:
    """Compiler, flags and torch version of the build; empty where nothing was built."""
    info = {key: str(value) for key, value in _recorded().items()}
    if _C is not None:
        info["compiler"] = _C.compiler()
    return info


def ops() -> tuple[str, ...]:
    """The op stems that have compiled kernels."""
    return () if _C is None else tuple(_C.kernel_tables())


def implementations(op: str) -> tuple[Implementation, ...]:
    """The rows of the kernel table of ``op``, best first; empty without a compiled module.

    Raises:
        ValueError: no such op.
    """
    if _C is None:
        return ()
    if op not in _C.kernel_tables():
        raise ValueError(f"backends: no op {op!r}; there are {ops()}")
    return tuple(Implementation(*row) for row in _C.kernels(op))


def kernel(op: str, layout: str = "", rows: int = MANY_ROWS) -> str:
    """The implementation of ``op`` that runs now; ``"reference"`` without a compiled module.

    ``layout``: that of a packed weight. A kernel of a "cut" layout leaves weights that it cannot
    take to the next row, which packs them in its own. ``rows``: of the input, of which some
    kernels want a least number; below it the next kernel of the same layout runs.
    """
    if _C is None:
        return "reference"
    name: str = _C.active_kernel(op, layout, rows)
    return name


def layout(op: str) -> str:
    """Tag of the packed layout that the implementation running now prefers."""
    if _C is None:
        return "plain"
    name = kernel(op)
    return next(row.layout for row in implementations(op) if row.name == name)


def forget_prepared_net(number: int) -> None:
    """Free what the kernels hold of a ``pyops.ops.PreparedNet``."""
    if _C is not None:
        _C.forget_prepared_net(number)


@contextmanager
def force(op: str, name: str) -> Iterator[None]:
    """Run implementation ``name`` of ``op``, in the whole process, until the block ends.

    Raises:
        ValueError: there is no such implementation, or this CPU cannot run it.
    """
    usable = [row.name for row in implementations(op) if row.available]
    if name not in usable:
        raise ValueError(f"backends.force: {op} has no {name!r} here; usable: {usable}")
    assert _C is not None
    before = _C.forced_kernel(op)
    _C.force_kernel(op, name)
    isa.changed()
    try:
        yield
    finally:
        _C.force_kernel(op, before)
        isa.changed()
