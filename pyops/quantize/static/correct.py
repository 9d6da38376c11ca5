"""Bias correction: the mean error of each layer's output, taken out of its bias.

Nagel et al. 2019, arXiv:1906.04721, section 4.2, measured on calibration data: layer after layer,
each behind layers that are corrected already. What is corrected is the mean over samples and
positions of each channel before the activation, so rounding of weights and of what the layer reads
count alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...graph import net_calls as calls
from ...graph import net_steps as steps
from ...graph.net_fold import path_of
from .net import Net, Steps


def correct_biases(net: Net, means: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> None:
    """Changes the biases of the int8 layers of a lowered net, in place.

    ``means``: those that the float net had on the same inputs (``Means``).
    """
    with torch.no_grad():
        _Correcting(net, means).values(inputs)


def _mean(y: Tensor, is_linear: bool) -> Tensor:
    """Of each output channel, fp64: the last dimension of a Linear, else the second."""
    return y.double().movedim(-1 if is_linear else 1, 0).flatten(1).mean(1)


class Means(Steps):
    """The mean of each output channel of each layer, before its activation, in ``found``."""

    def __init__(self, net: Net) -> None:
        super().__init__(net)
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.target is steps.layer:
            (module, x, *_), _ = self.fetch_args_kwargs_from_env(n)
            if path_of(n) not in self.found:
                self.found[path_of(n)] = _mean(module(x), isinstance(module, nn.Linear))
        return super().run_node(n)


class _Correcting(Steps):
    def __init__(self, net: Net, means: Mapping[str, Tensor]) -> None:
        super().__init__(net)
        self.means = dict(means)

    def run_node(self, n: fx.Node) -> Any:
        if n.target in (calls.conv, calls.conv_of_rows, calls.linear):
            wanted = self.means.pop(path_of(n), None)  # at the first call of the layer
            if wanted is not None:
                args, _ = self.fetch_args_kwargs_from_env(n)
                self._correct(n, list(args), wanted)
        return super().run_node(n)

    def _correct(self, n: fx.Node, args: list[Any], wanted: Tensor) -> None:
        layer, x = args[:2]
        as_float = calls.out_of(None)
        if n.target is calls.linear:
            y = calls.linear(layer, x, "none", as_float)
        else:
            none = (None, (1.0, 0), calls.act_of(steps.NONE), None, as_float)
            y = n.target(layer, x, args[2], *none)  # type: ignore[operator]
        error = _mean(y, n.target is calls.linear) - wanted
        old = layer._buffers["bias"]
        bias = -error if old is None else old.double() - error
        with torch.inference_mode(False):  # a layer's own tensors count their versions
            layer._buffers["bias"] = bias.to(torch.float32)
