"""The kernels without torch: under sanitizers here, and on emulated CPUs that lack AVX."""

from __future__ import annotations

import platform
import signal
import subprocess
from collections.abc import Callable
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


@pytest.fixture(scope="module")
def sources(root: Path, without_torch: Callable[[Path], bool]) -> list[Path]:
    """The driver and the kernels of int8_gemm, which need no torch."""
    cpu = root / "csrc" / "cpu"
    found = [*sorted((cpu / "int8_gemm").glob("*.cpp")), cpu / "isa.cpp"]
    return [*filter(without_torch, found), root / "tests" / "csrc" / "kernel_driver.cpp"]


@pytest.fixture(scope="module")
def program(
    build: Callable[..., Path], sources: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return build(tmp_path_factory.mktemp("plain") / "kernel_driver", sources)


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


def test_under_sanitizers(build, sources, sanitize, tmp_path):
    sanitized = build(tmp_path / "kernel_driver", sources, *sanitize)
    output = run(sanitized, "--cases", 300, "--seed", 2)
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
