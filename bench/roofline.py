"""Measures this machine's peaks with ``roofline.cpp``, built on demand by the system compiler."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("roofline.cpp")
# The instruction that bounds a kernel of each ISA level. A generic kernel has no single one.
PEAK_OF_ISA = {
    "amx": "tdpbusd_amx",
    "avx512vbmi2": "vpdpbusd_zmm",
    "avx512vnni": "vpdpbusd_zmm",
    "avx512": "vpmaddwd_zmm",
    "avxvnni": "vpdpbusd_ymm",
    "avx2": "vpmaddwd_ymm",
}
# Of a call of an instruction alone: long beside the start of its threads.
BURST_SECONDS = 0.004


@dataclass(frozen=True)
class Roofline:
    """Measured peaks by name (GOP/s, GB/s, bytes) on ``threads``, and why others are missing."""

    threads: int
    values: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def memory_level(self, footprint: float) -> str:
        """Return the smallest level that holds ``footprint`` bytes: l1, l2, l3 or dram."""
        for level, copies in (("l1", self.threads), ("l2", self.threads), ("l3", 1)):
            if footprint <= copies * self.values.get(f"cache_{level}", 0):
                return level
        return "dram"

    def limit(
        self, peak_name: str, operations: float, bytes_moved: float
    ) -> tuple[float, str] | None:
        """Return the least seconds that ``operations`` on ``bytes_moved`` can take, and what binds.

        None where the peak or the bandwidth was not measured.
        """
        peak = self.values.get(peak_name)
        level = self.memory_level(bytes_moved)
        bandwidth = self.values.get(f"read_{level}")
        if not peak or not bandwidth:
            return None
        compute, memory = operations / peak / 1e9, bytes_moved / bandwidth / 1e9
        return (compute, "compute") if compute >= memory else (memory, level)


class Peaks:
    """Runs the instructions of the measured peaks in this process, between calls of kernels."""

    def __init__(self, rooflines: list[Roofline]) -> None:
        """Build the probe as a library.

        Raises:
            RuntimeError: it could not be built.
        """
        self._gops = {each.threads: each.values for each in rooflines}
        with tempfile.TemporaryDirectory() as folder:
            probe = ctypes.CDLL(str(compile_probe(Path(folder), "-shared", "-fPIC")))
        self._run = probe.run_peak
        self._run.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_double)
        self._run.restype = ctypes.c_double

    def burst(self, name: str, threads: int) -> tuple[Callable[[], object], float] | None:
        """Return a call of ``BURST_SECONDS`` of peak ``name``, and its operations.

        None where that was not measured.
        """
        gops = self._gops.get(threads, {}).get(name)
        if gops is None:
            return None
        wanted = gops * 1e9 * BURST_SECONDS

        def run() -> float:
            done: float = self._run(name.encode(), threads, wanted)
            return done

        return run, run()


def compile_probe(folder: Path, *arguments: str) -> Path:
    """Build the probe into ``folder`` and return the program.

    Raises:
        RuntimeError: no compiler, or it refuses the source; the message is the reason.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise RuntimeError("no C++ compiler found (looked for $CXX, c++, g++)")
    program = folder / "roofline"
    command = [compiler, "-O2", "-std=c++17", "-pthread", *arguments, str(SOURCE)]
    result = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True)
    if result.returncode:
        first = (result.stderr.strip().splitlines() or ["no message"])[0]
        raise RuntimeError(f"{compiler} could not build the roofline probe: {first}")
    return program


def parse(output: str, threads: int) -> Roofline:
    """Return what the probe printed: one JSON object per line."""
    roofline = Roofline(threads)
    for line in output.splitlines():
        entry = json.loads(line)
        if "value" in entry:
            roofline.values[entry["name"]] = entry["value"]
        else:
            roofline.reasons[entry["name"]] = entry["reason"]
    return roofline


def measure(*thread_counts: int) -> list[Roofline]:
    """Build the probe and run it on each number of threads.

    Raises:
        RuntimeError: it could not be built or it failed.
    """
    rooflines = []
    with tempfile.TemporaryDirectory() as folder:
        program = compile_probe(Path(folder))
        for threads in thread_counts:
            result = subprocess.run([program, str(threads)], capture_output=True, text=True)
            if result.returncode:
                raise RuntimeError(f"roofline probe failed: {result.returncode} {result.stderr}")
            rooflines.append(parse(result.stdout, threads))
    return rooflines
