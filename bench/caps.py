"""Caps the instruction sets of the peers, which read them from the environment at start."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

CAPS: Mapping[str, Mapping[str, str]] = {
    "native": {},
    "bf16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "vnni": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "NM_ARCH": "avx2",
    },
}


def missing(level: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that ``level`` needs and ``environment`` does not hold yet."""
    return {k: v for k, v in CAPS[level].items() if environment.get(k) != v}


def in_force() -> bool:
    """Whether the environment caps the peers."""
    return any(name in os.environ for level in CAPS.values() for name in level)


def enforce(level: str) -> None:
    """Start this program again with the caps of ``level``, unless they hold already."""
    wanted = missing(level, os.environ)
    if wanted:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})
