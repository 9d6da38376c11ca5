"""Decides whether the extension is compiled, and with which compiler."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

MODES = ("auto", "cpp", "python")


class Plan(NamedTuple):
    """``reason`` says why nothing is compiled; it is None when ``compiler`` is to be used."""

    compiler: tuple[str, ...]
    reason: str | None


def make_plan(environ: Mapping[str, str]) -> Plan:
    """Decide from ``PYOPS_BUILD`` (auto, cpp, python), ``CXX`` and the compilers on ``PATH``.

    ``auto`` compiles if there is a compiler; what fails after that is an error, never a fallback.

    Raises:
        ValueError: ``PYOPS_BUILD`` is something else.
        RuntimeError: ``PYOPS_BUILD=cpp`` and nothing to compile with, or a compiler is there and
            Python's headers are not.
    """
    mode = environ.get("PYOPS_BUILD", "") or "auto"
    if mode not in MODES:
        raise ValueError(f"PYOPS_BUILD={mode}: expected one of {', '.join(MODES)}")
    if mode == "python":
        return Plan((), "PYOPS_BUILD=python was set at build time")
    compiler, missing = _find_compiler(environ)
    if missing is not None:
        if mode == "cpp":
            raise RuntimeError(f"PYOPS_BUILD=cpp, but {missing}")
        return Plan((), missing)
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").is_file():
        raise RuntimeError(
            f"the compiler {compiler[0]} is there, but {include}/Python.h is not: install Python's"
            " development headers (python3-dev), or set PYOPS_BUILD=python to install without"
            " compiled kernels"
        )
    return Plan(compiler, None)


def _find_compiler(environ: Mapping[str, str]) -> tuple[tuple[str, ...], str | None]:
    if os.name != "posix":
        return (), f"the kernels are compiled on Linux and macOS only, this is {sys.platform}"
    path = environ.get("PATH")
    if environ.get("CXX"):
        command = tuple(shlex.split(environ["CXX"]))
        if shutil.which(command[0], path=path) is None:
            return (), f"no C++ compiler was found at build time: CXX={environ['CXX']}"
        return command, None
    names = ("c++", "g++", "clang++")
    for name in names:
        if shutil.which(name, path=path) is not None:
            return (name,), None
    tried = ", ".join(names)
    return (), f"no C++ compiler was found at build time: tried {tried} on PATH; CXX is not set"
