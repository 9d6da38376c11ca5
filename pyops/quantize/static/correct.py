"""Bias correction: the mean error of each layer's output, taken out of its bias.

Nagel et al. 2019, arXiv:1906.04721, section 4.2, measured on calibration data: layer after layer,
each behind layers that are corrected already. What is corrected is the mean over samples and
positions of each channel before the activation, so rounding of weights and of what the layer reads
count alike. Where a ReLU or a clamp follows, the mean is over the values that it lets through in
the float net: errors of the others end there, however large they are, and must not move the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ...graph import net_calls as calls
from ...graph import net_steps as steps
from ...graph.net_fold import path_of
from .net import Net, Steps

_BITS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass
class Mean:
    """Of each output channel, fp64, over the values in ``bits``; None stands for all of them."""

    of: Tensor
    bits: Tensor | None


def correct_biases(net: Net, means: Mapping[str, Mean], inputs: Mapping[str, Tensor]) -> None:
    """Changes the biases of the int8 layers of a lowered net, in place.

    ``means``: those that the float net had on the same inputs (``Means``).
    """
    with torch.no_grad():
        _Correcting(net, means).values(inputs)


def mean_of(y: Tensor, passing: Tensor | None, is_linear: bool) -> Tensor:
    """Of each output channel, fp64: the last dimension of a Linear, else the second.

    ``passing``: the values that count; 0 for a channel that has none.
    """
    dim = -1 if is_linear else 1
    if passing is None:
        return y.double().movedim(dim, 0).flatten(1).mean(1)
    others = [d for d in range(y.dim()) if d != dim % y.dim()]
    total = torch.where(passing, y, 0.0).sum(others, dtype=torch.float64)
    return total / passing.sum(others).clamp_min(1)


def passing_of(y: Tensor, act: Sequence[Any]) -> Tensor | None:
    """Which values an activation hands on; None where it is none that cuts off."""
    name, low, high = act[:3]
    if name == "clamp":
        return (y > low) & (y < high)
    return y > 0 if name == "relu" else None


def packed(mask: Tensor) -> Tensor:
    """A mask in one bit a value."""
    flat = F.pad(mask.reshape(-1), (0, -mask.numel() % 8)).reshape(-1, 8).to(torch.uint8)
    return (flat * torch.tensor(_BITS, dtype=torch.uint8, device=mask.device)).sum(
        1, dtype=torch.uint8
    )


def unpacked(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """The inverse of ``packed``."""
    powers = torch.tensor(_BITS, dtype=torch.uint8, device=bits.device)
    mask = (bits[:, None] & powers).ne(0).reshape(-1)
    return mask[: math.prod(shape)].reshape(list(shape))


class Means(Steps):
    """The mean of each layer's output before its activation, at its first call, in ``found``."""

    def __init__(self, net: Net) -> None:
        super().__init__(net)
        self.found: dict[str, Mean] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.target is steps.layer and path_of(n) not in self.found:
            (module, x, residual, act), _ = self.fetch_args_kwargs_from_env(n)
            y = module(x)
            passing = passing_of(y if residual is None else y + residual, act)
            mean = mean_of(y, passing, isinstance(module, nn.Linear))
            self.found[path_of(n)] = Mean(mean, None if passing is None else packed(passing))
        return super().run_node(n)


class _Correcting(Steps):
    def __init__(self, net: Net, means: Mapping[str, Mean]) -> None:
        super().__init__(net)
        self.means = dict(means)

    def run_node(self, n: fx.Node) -> Any:
        if n.target in (calls.conv, calls.conv_of_rows, calls.linear):
            wanted = self.means.pop(path_of(n), None)  # at the first call of the layer
            if wanted is not None:
                args, _ = self.fetch_args_kwargs_from_env(n)
                self._correct(n, list(args), wanted)
        return super().run_node(n)

    def _correct(self, n: fx.Node, args: list[Any], wanted: Mean) -> None:
        layer, x = args[:2]
        as_float = calls.out_of(None)
        if n.target is calls.linear:
            y = calls.linear(layer, x, "none", as_float)
        else:
            none = (None, (1.0, 0), calls.act_of(steps.NONE), None, as_float)
            y = n.target(layer, x, args[2], *none)  # type: ignore[operator]
        passing = None if wanted.bits is None else unpacked(wanted.bits, y.shape)
        error = mean_of(y, passing, n.target is calls.linear) - wanted.of
        old = layer._buffers["bias"]
        bias = -error if old is None else old.double() - error
        with torch.inference_mode(False):  # a layer's own tensors count their versions
            layer._buffers["bias"] = bias.to(torch.float32)
