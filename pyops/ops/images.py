"""Images as the ops lay them out: [N, C, H, W] with the memory of [N, H, W, C]."""

from collections.abc import Sequence

import torch
from torch import Tensor


def empty_image(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialised; of channels_last memory where it is 4-D."""
    memory = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=dtype, device=device, memory_format=memory)
