"""The kernels without torch: under sanitizers here, and on emulated CPUs that lack AVX."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import pyops
from pyops import backends

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64"), reason="the emulated CPUs are x86-64"
    ),
]
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def kernel_sources(root: Path) -> list[Path]:
    """Every C++ file of the CPU kernels that needs no torch."""
    found = sorted((root / "csrc" / "cpu").rglob("*.cpp"))
    return [path for path in found if "TORCH_" not in path.read_text()]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles the driver with the module's own flags and more."""
    root = Path(__file__).resolve().parents[2]
    if not backends.compiled():
        pytest.skip(f"nothing is compiled: {backends.why_not_compiled()}")
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    # Without NDEBUG, so that assertions count.
    flags = [f for f in backends.build_info()["flags"].split() if f != "-DNDEBUG"]

    def run(name: str, *extra: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        sources = [*kernel_sources(root), root / "tests" / "csrc" / "kernel_driver.cpp"]

        def compile_one(numbered: tuple[int, Path]) -> str:
            number, source = numbered
            obj = str(folder / f"{number}-{source.stem}.o")
            includes = ["-I", str(root / "csrc")]
            command = [*compiler, *flags, *extra, *includes, "-c", str(source), "-o", obj]
            subprocess.run(command, check=True)
            return obj

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, enumerate(sources)))
        program = folder / "kernel_driver"
        subprocess.run([*compiler, *extra, *objects, "-o", str(program)], check=True)
        return program

    return run


@pytest.fixture(scope="module")
def program(build: Callable[..., Path]) -> Path:
    return build("plain")


@pytest.fixture
def qemu() -> str:
    found = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if found is None:
        pytest.skip("qemu-x86_64 (Debian: qemu-user) is not installed")
    return found


def run(*command: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\n0 failures\n")
    return done.stdout


def ran(output: str) -> set[str]:
    """Names of the kernels that a run of the driver tried."""
    return {line.removeprefix("ran ") for line in output.splitlines() if line.startswith("ran ")}


def test_natively(program):
    """Every kernel that this CPU has, at the module's own optimisation level."""
    output = run(program, "--cases", 1000, "--expect", ",".join(pyops.isa.available()))
    assert ran(output) == {k.name for k in backends.implementations("int8_gemm") if k.available}


def test_under_sanitizers(build):
    output = run(build("sanitized", *SANITIZE), "--cases", 300, "--seed", 2)
    assert ran(output) == {k.name for k in backends.implementations("int8_gemm") if k.available}


@pytest.mark.parametrize(
    ("cpu", "levels", "kernels"),
    [
        ("Nehalem", "generic", {"generic", "odd"}),
        ("qemu64", "generic", {"generic", "odd"}),
        ("Haswell", "generic,avx2", {"generic", "odd", "avx2", "avx2wide"}),
    ],
)
def test_on_an_emulated_cpu(program, qemu, cpu, levels, kernels):
    output = run(qemu, "-cpu", cpu, program, "--cases", 60, "--expect", levels)
    assert ran(output) == kernels


def test_the_emulated_cpu_refuses_what_it_lacks(program, qemu):
    """Without the choice of kernels the program dies: emulation would have shown a wrong one."""
    done = subprocess.run([qemu, "-cpu", "Nehalem", program, "--any-cpu"], capture_output=True)
    assert done.returncode == -signal.SIGILL
