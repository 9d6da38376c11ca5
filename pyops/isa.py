"""Which instruction-set levels this CPU has, which one runs, and how to cap it.

A cap holds for the whole process: ``with pyops.isa.force("avx2")`` in code, or the environment
variable ``PYOPS_MAX_ISA=avx2`` read when the compiled module loads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch  # noqa: F401  (the compiled module links the libraries that this loads)

import_error: str | None = None
try:
    from . import _C as _C
except ImportError as error:
    _C = None  # type: ignore[assignment]
    import_error = str(error)

_lock = threading.Lock()
_epoch = 0


def _check_environment() -> None:
    name = os.environ.get("PYOPS_MAX_ISA")
    if name and _C is not None and name not in levels():
        raise ValueError(f"PYOPS_MAX_ISA={name} is no level of this build: {', '.join(levels())}")


def available() -> tuple[str, ...]:
    """Levels that this CPU can run and this build holds, worst first.

    ``("reference",)`` where there is no compiled module.
    """
    if _C is None:
        return ("reference",)
    return tuple(name for name, present in _C.isa_levels() if present)


def levels() -> dict[str, bool]:
    """Every level that this build holds, worst first, and whether this CPU can run it."""
    return {} if _C is None else dict(_C.isa_levels())


def active() -> str:
    """The best level that is allowed now."""
    return "reference" if _C is None else _C.isa_active()


def epoch() -> int:
    """A number that changes whenever the choice of kernels may have changed."""
    return _epoch


def changed() -> None:
    """Say that the choice of kernels may have changed."""
    global _epoch
    with _lock:
        _epoch += 1


@contextmanager
def force(name: str) -> Iterator[None]:
    """Allow no level above ``name`` in this process until the block ends.

    It takes the place of an outer ``force`` and of ``PYOPS_MAX_ISA``. A kernel that
    ``backends.force`` names runs all the same.

    Raises:
        ValueError: ``name`` is not in ``available()``.
    """
    if name not in available():
        raise ValueError(f"isa.force: {name!r} is not available here; available: {available()}")
    if _C is None:
        yield
        return
    before = _C.isa_cap()
    _C.set_isa_cap(name)
    changed()
    try:
        yield
    finally:
        _C.set_isa_cap(before)
        changed()


_check_environment()
