"""Measures this machine's peaks with ``roofline.cpp``, built on demand by the system compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("roofline.cpp")
# The instruction that bounds a kernel of each ISA level. A generic kernel has no single one.
PEAK_OF_ISA = {
    "amx": "tdpbusd_amx",
    "avx512vnni": "vpdpbusd_zmm",
    "avx512": "vpmaddwd_zmm",
    "avxvnni": "vpdpbusd_ymm",
    "avx2": "vpmaddwd_ymm",
}


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

    def peak(self, isa: str, name: str | None = None) -> float | None:
        """Return the measured GOP/s of peak ``name``, None: of int8 on ``isa``; else None."""
        return self.values.get(name or PEAK_OF_ISA.get(isa, ""))

    def limit(
        self, isa: str, operations: float, bytes_moved: float, name: str | None = None
    ) -> tuple[float, str] | None:
        """Return the least seconds that ``operations`` on ``bytes_moved`` can take, and what binds.

        ``name``: as for ``peak``. None where the peak or the bandwidth was not measured.
        """
        peak = self.peak(isa, name)
        level = self.memory_level(bytes_moved)
        bandwidth = self.values.get(f"read_{level}")
        if not peak or not bandwidth:
            return None
        compute, memory = operations / peak / 1e9, bytes_moved / bandwidth / 1e9
        return (compute, "compute") if compute >= memory else (memory, level)


def compile_probe(folder: Path) -> Path:
    """Build the probe into ``folder`` and return the program.

    Raises:
        RuntimeError: no compiler, or it refuses the source; the message is the reason.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise RuntimeError("no C++ compiler found (looked for $CXX, c++, g++)")
    program = folder / "roofline"
    command = [compiler, "-O2", "-std=c++17", "-pthread", str(SOURCE), "-o", str(program)]
    result = subprocess.run(command, capture_output=True, text=True)
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
