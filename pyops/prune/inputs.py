"""What a layer's weight is multiplied by: its input as columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.conv_module import padding_of

CHUNK = 1 << 23  # values of the columns that are in memory at a time


def columns_of(layer: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Parts ``[groups, K, L]`` of the columns that each row of ``matrix_of(weight)`` multiplies.

    ``x``: an input of an ``nn.Linear``, ``nn.Conv1d`` or ``nn.Conv2d``, also without batch.
    """
    if isinstance(layer, nn.Linear):
        yield x.reshape(-1, x.shape[-1]).T[None]
        return
    conv: Any = layer
    spatial = len(conv.kernel_size)
    images = x if x.dim() == spatial + 2 else x[None]
    sides = padding_of(conv)
    pairs = [sides[i : i + 2] for i in range(0, len(sides), 2)]
    padding = [side for pair in reversed(pairs) for side in pair]
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    size = max(images[:1].numel() * conv.weight[0, 0].numel(), 1)
    for part in torch.split(images, max(CHUNK // size, 1)):
        padded = F.pad(part, padding, mode=mode)
        kernel, dilation, stride = (
            (1,) * (2 - spatial) + tuple(value)
            for value in (conv.kernel_size, conv.dilation, conv.stride)
        )
        flat = F.unfold(
            padded if spatial == 2 else padded[:, :, None], kernel, dilation, stride=stride
        )
        shape = (len(part), conv.groups, conv.weight.shape[1], -1, flat.shape[-1])
        by_group = flat.view(shape).permute(1, 3, 2, 0, 4)
        yield by_group.reshape(conv.groups, -1, len(part) * flat.shape[-1])
