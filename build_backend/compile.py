"""Compiles ``csrc/**/*.cpp`` into one extension module, in parallel and incrementally.

The command lines are written here and not left to setuptools: it adds the flags that Python itself
was built with and those in ``CFLAGS``, where one ``-march`` would put instructions that only some
CPUs have into code that runs on all of them. ``CXX`` may hold arguments for what a system needs.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

# -ffp-contract=off: gcc would fuse a * b + c into one rounding, also when written as intrinsics,
#     and results would differ between instruction sets.
# TORCH_TARGET_VERSION: only what libtorch's stable ABI had in 2.10, so that one build loads in
#     every later torch.
FLAGS = (
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-DNDEBUG",
    "-DTORCH_TARGET_VERSION=0x020a000000000000",
    "-Wall",
    "-Wextra",
)
# -fno-tree-pre: gcc 12's partial redundancy elimination keeps a copy on the stack of every sum of
#     an int8 tile: 56 vector moves through memory in a loop of 24 multiplies.
#     clang has no such option and needs none.
# -Wno-uninitialized, -Wno-restrict: gcc 12 warns about its own headers, _mm512_undefined_* and
#     std::string.
FLAGS_OF_GCC = ("-fno-tree-pre", "-Wno-uninitialized", "-Wno-restrict")
# Some distributions configure their compiler for x86-64-v3: the baseline is spelled out.
FLAGS_OF_X86 = ("-march=x86-64", "-mtune=generic")
LIBRARIES = ("torch", "torch_cpu", "c10")


def flags(compiler: tuple[str, ...]) -> tuple[str, ...]:
    """Return the flags of every source file for this compiler on this machine."""
    is_gcc = "clang" not in compiler_version(compiler)
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return (*FLAGS, *(FLAGS_OF_GCC if is_gcc else ()), *(FLAGS_OF_X86 if is_x86 else ()))


class Build(NamedTuple):
    """One extension module: what it is made of, and where objects are kept between builds."""

    compiler: tuple[str, ...]
    root: Path
    sources: tuple[Path, ...]
    include_dirs: tuple[Path, ...]
    system_include_dirs: tuple[Path, ...]
    library_dir: Path
    cache: Path


def compile_extension(build: Build, target: Path) -> None:
    """Compile what changed, link ``target``.

    Raises:
        RuntimeError: the compiler or the linker failed; the message has its command and output.
    """
    objects_dir = build.cache / _key(build)
    objects_dir.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_cores()) as pool:
        objects = list(pool.map(lambda s: _compile(build, s, objects_dir), build.sources))
    target.parent.mkdir(parents=True, exist_ok=True)
    mac = ("-bundle", "-undefined", "dynamic_lookup")
    shared = mac if sys.platform == "darwin" else ("-shared",)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    libraries = (f"-L{build.library_dir}", *(f"-l{name}" for name in LIBRARIES))
    _run([*build.compiler, *shared, *map(str, objects), *libraries, "-pthread", "-o", str(partial)])
    os.replace(partial, target)


@functools.cache
def compiler_version(compiler: tuple[str, ...]) -> str:
    """Return the first line of ``compiler --version``."""
    return _run([*compiler, "--version"]).splitlines()[0].strip()


def _compile(build: Build, source: Path, objects_dir: Path) -> Path:
    stem = "-".join(source.relative_to(build.root).with_suffix("").parts)
    obj, deps = objects_dir / f"{stem}.o", objects_dir / f"{stem}.d"
    if not _stale(obj, deps):
        return obj
    partial = objects_dir / f"{stem}.{os.getpid()}.partial"
    includes = [f"-I{d}" for d in build.include_dirs]
    for directory in build.system_include_dirs:
        includes += ["-isystem", str(directory)]
    print(f"compiling {source.relative_to(build.root)}", flush=True)
    command = [*build.compiler, *flags(build.compiler), *includes, "-MMD", "-MF", str(deps)]
    print(_run([*command, "-c", str(source), "-o", str(partial)]), end="", flush=True)
    os.replace(partial, obj)
    return obj


def _stale(obj: Path, deps: Path) -> bool:
    """Tell whether the object is missing or older than a file that the compiler read for it."""
    if not obj.is_file() or not deps.is_file():
        return True
    made = obj.stat().st_mtime
    names = deps.read_text().replace("\\\n", " ").partition(": ")[2]
    files = [Path(name) for name in _split_unescaped(names)]
    return any(not f.is_file() or f.stat().st_mtime > made for f in files)


def _split_unescaped(names: str) -> list[str]:
    """Split a make rule's prerequisites; a space inside a name is written ``\\ ``."""
    return [n.replace("\0", " ") for n in names.replace("\\ ", "\0").split()]


def _key(build: Build) -> str:
    """Name the objects' folder after everything but the sources that decides their content."""
    facts = (
        sys.implementation.cache_tag,
        *build.compiler,
        compiler_version(build.compiler),
        *flags(build.compiler),
        *map(str, build.include_dirs),
        *map(str, build.system_include_dirs),
    )
    return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()[:16]


def _cores() -> int:
    has_affinity = hasattr(os, "sched_getaffinity")  # cgroup and taskset limits; not on macOS
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"failed ({done.returncode}): {shlex.join(command)}\n{done.stdout}")
    return done.stdout
