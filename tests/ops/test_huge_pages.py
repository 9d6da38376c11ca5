"""Packed weights, which every call reads from end to end, ask for huge pages."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyops import backends, ops

SMAPS = Path("/proc/self/smaps")

pytestmark = [
    pytest.mark.skipif(
        platform.system() != "Linux" or not Path("/sys/kernel/mm/transparent_hugepage").exists(),
        reason="the system has no transparent huge pages",
    ),
    pytest.mark.skipif(not backends.compiled(), reason="the reference asks for nothing"),
]


def flags_at(address: int) -> list[str]:
    """The flags of the mapping that holds ``address``; "hg": huge pages were asked for."""
    inside = False
    for line in SMAPS.read_text().splitlines():
        if span := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(span[1], 16) <= address < int(span[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError(f"no mapping holds {address:#x}")


def int4(weight: Tensor) -> Tensor:
    return ops.int4_pack(weight, torch.ones(len(weight), weight.shape[1] // 128), group_size=128)


@pytest.mark.parametrize("pack", [ops.int8_pack, ops.int8_weight_pack, int4])
def test_a_large_packed_weight_asks_for_huge_pages(pack: Callable[[Tensor], Tensor]) -> None:
    packed = pack(torch.ones(4096, 4096, dtype=torch.int8))
    assert "hg" in flags_at(packed.data_ptr() + packed.numel() // 2)
