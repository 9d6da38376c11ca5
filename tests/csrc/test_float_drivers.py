"""Kernels with float results without torch: under sanitizers, and on emulated CPUs."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyops import backends

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64"), reason="the emulated CPUs are x86-64"
    ),
]
# Every op with a driver of its own name; that of int8_gemm is kernel_driver.cpp.
OPS = sorted(
    name
    for path in Path(__file__).parent.glob("*_driver.cpp")
    if (name := path.stem.removesuffix("_driver")) in backends.ops()
)
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def build(op: str, root: Path, folder: Path, *extra: str) -> Path:
    """Compiles the kernels of ``op`` and their driver with the module's own flags and more."""
    if not backends.compiled():
        pytest.skip(f"nothing is compiled: {backends.why_not_compiled()}")
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    flags = [f for f in backends.build_info()["flags"].split() if f != "-DNDEBUG"]
    cpu = root / "csrc" / "cpu"
    kernels = [p for p in sorted((cpu / op).glob("*.cpp")) if p.stem != "driver"]
    sources = [*kernels, cpu / "isa.cpp", root / "tests" / "csrc" / f"{op}_driver.cpp"]

    def compile_one(source: Path) -> str:
        obj = str(folder / f"{source.stem}.o")
        command = [*compiler, *flags, *extra, "-I", str(root / "csrc"), "-c", str(source)]
        subprocess.run([*command, "-o", obj], check=True)
        return obj

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    program = folder / f"{op}_driver"
    subprocess.run([*compiler, *extra, *objects, "-o", str(program)], check=True)
    return program


def ran(*command: object) -> set[str]:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\n0 failures\n")
    return {line.removeprefix("ran ") for line in done.stdout.splitlines() if line[:4] == "ran "}


@pytest.mark.parametrize("op", OPS)
def test_under_sanitizers(op, root, tmp_path):
    program = build(op, root, tmp_path, *SANITIZE)
    available = {k.name for k in backends.implementations(op) if k.available}
    assert ran(program, "--cases", 100) == available


@pytest.mark.parametrize("op", OPS)
def test_on_emulated_cpus(op, root, tmp_path):
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if qemu is None:
        pytest.skip("qemu-x86_64 (Debian: qemu-user) is not installed")
    program = build(op, root, tmp_path)
    plain = {"generic", "odd"}
    assert ran(qemu, "-cpu", "Nehalem", program, "--cases", 20) == plain
    assert ran(qemu, "-cpu", "Haswell", program, "--cases", 20) == {*plain, "avx2"}
