"""Kernels without torch: under sanitizers, and on emulated CPUs."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Callable
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


@pytest.fixture
def sources(op: str, root: Path, without_torch: Callable[[Path], bool]) -> list[Path]:
    """The driver of ``op``, and the kernels of the ops that it includes, which need no torch."""
    cpu, driver = root / "csrc" / "cpu", root / "tests" / "csrc" / f"{op}_driver.cpp"
    included = re.findall(r'^#include "cpu/(\w+)/', driver.read_text(), re.MULTILINE)
    ops = sorted({op, *included} & set(backends.ops()))
    kernels = [path for name in ops for path in sorted((cpu / name).glob("*.cpp"))]
    return [*filter(without_torch, kernels), cpu / "isa.cpp", driver]


def ran(*command: object) -> set[str]:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\n0 failures\n")
    return {line.removeprefix("ran ") for line in done.stdout.splitlines() if line[:4] == "ran "}


@pytest.mark.parametrize("op", OPS)
def test_under_sanitizers(op, build, sources, sanitize, tmp_path):
    program = build(tmp_path / f"{op}_driver", sources, *sanitize)
    available = {k.name for k in backends.implementations(op) if k.available}
    assert ran(program, "--cases", 100) == available


@pytest.mark.parametrize("op", OPS)
def test_on_emulated_cpus(op, build, sources, qemu, tmp_path):
    program = build(tmp_path / f"{op}_driver", sources)
    plain = {"generic", "odd", "pairs_odd"} & {k.name for k in backends.implementations(op)}
    assert ran(qemu, "-cpu", "Nehalem", program, "--cases", 20) == plain
    assert ran(qemu, "-cpu", "Haswell", program, "--cases", 20) == {*plain, "avx2"}
