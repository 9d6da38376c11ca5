"""What a measured number needs beside it: the processor, the threads, the versions, the load."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path

import torch

import pyops.isa
from pyops import backends

LEAST_IDLE = 0.9
SAMPLE_SECONDS = 0.5
PEERS = ("torchao", "onnxruntime", "openvino", "nncf")
CAPS = (
    "PYOPS_MAX_ISA",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
    "NM_ARCH",
)


def processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def load_average() -> float | None:
    """Return the load of the last minute, None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def cpu_ticks() -> tuple[float, float] | None:
    """Return the ticks that all CPUs were idle and that passed in all, None off Linux."""
    try:
        words = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return None
    ticks = [float(word) for word in words[1:]]
    return ticks[3] + ticks[4], sum(ticks[:8])  # guest time is counted in user time already


def busy() -> str | None:
    """Return a warning when something else runs on this machine, else None.

    Looks for half a second, since the load average still counts what this process did before.
    """
    before = cpu_ticks()
    if before is None:
        return None
    time.sleep(SAMPLE_SECONDS)
    after = cpu_ticks()
    if after is None or after[1] == before[1]:
        return None
    idle = (after[0] - before[0]) / (after[1] - before[1])
    if idle >= LEAST_IDLE:
        return None
    return f"the CPUs were only {idle:.0%} idle before the run, so do not quote these times"


def cpu_use() -> tuple[float, float, float] | None:
    """Return seconds: that passed, that all CPUs were busy, and that we used of them.

    We are this process and its children. None off Linux. What the hypervisor took away counts as
    busy.
    """
    ticks = cpu_ticks()
    if ticks is None:
        return None
    idle, passed = ticks
    second = os.sysconf("SC_CLK_TCK")
    own = sum(os.times()[:4]) + running_children_ticks() / second
    return time.perf_counter(), (passed - idle) / second, own


def running_children_ticks() -> int:
    """Return the clock ticks that the children of this process used which have not ended yet."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may hold anything: state, parent, as 12th and 13th the ticks.
            fields = file.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[1]) == os.getpid():
            ticks += int(fields[11]) + int(fields[12])
    return ticks


def others_share(
    before: tuple[float, float, float] | None, after: tuple[float, float, float] | None
) -> float | None:
    """Return the share of all CPUs that others used between two readings of ``cpu_use``."""
    if before is None or after is None:
        return None
    wall, busy_seconds, own = (late - early for early, late in zip(before, after, strict=True))
    return max(0.0, busy_seconds - own) / (wall * (os.cpu_count() or 1))


def wait_until_idle(seconds: float) -> None:
    """Return when nothing else runs on this machine, or after about ``seconds``."""
    end = time.perf_counter() + seconds
    while busy() and time.perf_counter() < end:
        pass


def version(distribution: str) -> str | None:
    """Return the installed version of ``distribution``, None when it is absent."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def peers() -> str:
    """Return the installed packages that the benches compare with, and their versions."""
    found = [f"{name} {installed}" for name in PEERS if (installed := version(name))]
    return ", ".join(found) or "none installed beside torch"


def facts() -> dict[str, str]:
    """Return machine, threads, active ISA, versions and the environment's caps, ready to print."""
    load = load_average()
    cpus = os.cpu_count() or 1
    return {
        "processor": f"{processor()}, {cpus} logical CPUs",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "threads": str(torch.get_num_threads()),
        "isa": pyops.isa.active(),
        "kernels": "compiled" if backends.compiled() else "reference (no compiled module)",
        "torch": f"{torch.__version__} (uses {torch.backends.cpu.get_cpu_capability()})",
        "pyops": version("torch-pyops") or "not installed as a distribution",
        "peers": peers(),
        "caps": " ".join(f"{k}={os.environ[k]}" for k in CAPS if k in os.environ) or "none",
        "load": "unknown" if load is None else f"{load:.2f}",
    }
