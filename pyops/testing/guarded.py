"""Tensors whose memory ends at an unmapped page, so that reading too far is a fault."""

import ctypes
import mmap

import torch
from torch import Tensor


def guarded(t: Tensor, keep: list[object]) -> Tensor:
    """A copy of ``t`` whose last byte is followed by a page that may not be touched."""
    page, size = mmap.PAGESIZE, t.numel() * t.element_size()
    room = (size + page - 1) // page * page
    memory = mmap.mmap(-1, room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + room), ctypes.c_size_t(page), 0) == 0
    keep.append(memory)
    flat = torch.frombuffer(memory, dtype=t.dtype, count=t.numel(), offset=room - size)
    return flat.copy_(t.reshape(-1)).reshape(t.shape)
