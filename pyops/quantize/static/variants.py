"""One way to quantize a net: with or without equalization, before and after bias correction."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from ...graph import net_calls as calls
from ...graph import net_steps as steps
from ...graph.net_edges import islands
from ...graph.net_fold import path_of
from ...graph.net_int8 import lower
from ...nn.registry import replacement
from ..convert import put
from ..copying import copy_model
from ..edge import Edge
from .calibrate import calibrate
from .correct import Means, correct_biases
from .equalize import equalize
from .net import Net, Steps, make_net

SAMPLES = 32  # that biases are corrected on, and as many others that results are compared on
_SAMPLES_OF_LAYERS = 4
Inputs = dict[str, Tensor]


@dataclass
class Variant:
    """``net.model`` holds ``layers``, and ``net.graph`` is one of codes."""

    net: Net
    at: dict[str, Edge]
    layers: dict[str, nn.Module]
    biases: dict[str, Tensor | None]  # corrected
    layer_sqnr: dict[str, float | None]
    sqnr: float  # of the model's output, before the correction
    corrected_sqnr: float
    equalized: list[str]
    islands: list[list[str]]
    decisions: list[str] = field(default_factory=list)

    @property
    def best(self) -> float:
        return max(self.sqnr, self.corrected_sqnr)

    def decide(self, variants: list[Variant]) -> None:
        """Takes the corrected biases if they are better; notes this, and what it was chosen of."""
        other = next((one for one in variants if one is not self), None)
        if other is not None:
            plain, scaled = sorted((self, other), key=lambda one: bool(one.equalized))
            self.decisions.append(
                f"cross-layer equalization {'on' if self.equalized else 'off'}: output "
                f"{scaled.best:.1f} dB with, {plain.best:.1f} dB without"
            )
        corrects = self.corrected_sqnr > self.sqnr
        self.decisions.append(
            f"bias correction {'on' if corrects else 'off'}: output {self.corrected_sqnr:.1f} dB "
            f"with, {self.sqnr:.1f} dB without"
        )
        if corrects:
            for path, bias in self.biases.items():
                self.layers[path]._buffers["bias"] = bias


@dataclass
class Data:
    """``correcting`` and ``comparing``: at most ``SAMPLES`` samples, others where there are two
    batches. ``expected``: the model's own outputs on the latter."""

    batches: list[Inputs]
    correcting: Inputs
    comparing: Inputs
    expected: list[Tensor]


def make_data(model: nn.Module, batches: list[Inputs]) -> Data:
    """Splits the batches; runs the model on those that results are compared on.

    Every other one: batches may come in an order, and what is like one another close together.
    """
    correcting = _joined(batches[::2])
    comparing = _joined(batches[1::2]) if len(batches) > 1 else correcting
    with torch.no_grad():
        expected = _floats(model(**comparing))
    return Data(batches, correcting, comparing, expected)


def _joined(batches: list[Inputs]) -> Inputs:
    """Up to ``SAMPLES`` samples, spread over the batches, as one call."""
    like = {name: x.shape[1:] for name, x in batches[0].items()}
    same = [b for b in batches if {name: x.shape[1:] for name, x in b.items()} == like]
    if any(x.dim() == 0 for x in batches[0].values()):
        return batches[0]
    each = max(1, math.ceil(SAMPLES / len(same)))
    joined = {name: torch.cat([b[name][:each] for b in same])[:SAMPLES] for name in like}
    return joined if len({len(x) for x in joined.values()}) == 1 else batches[0]


def _floats(value: Any) -> list[Tensor]:
    leaves = [one for one in tree_leaves(value) if isinstance(one, Tensor)]
    return [one for one in leaves if one.is_floating_point()]


def make_variant(
    model: nn.Module,
    layers: set[str],
    data: Data,
    method: str,
    with_equalization: bool,
    advance: Callable[[], None],
) -> Variant | None:
    """None where equalization is asked for and finds nothing to do.

    Raises:
        CannotTraceError: with what the model does.
    """
    net = make_net(copy_model(model), layers, data.batches[0])
    equalized = equalize(net, data.batches) if with_equalization else []
    if with_equalization and not equalized:
        return None
    at = calibrate(net, data.batches, method, advance)
    few = {name: x[:_SAMPLES_OF_LAYERS] if x.dim() else x for name, x in data.comparing.items()}
    with torch.no_grad():
        means, outputs = Means(net), _Outputs(net)
        means.values(data.correcting)
        outputs.values(few)
        floats = islands(net.graph, net.edges)
        built = _int8_layers(net, at)
        lower(net.graph, net.model, net.edges, at)
        before = {path: layer._buffers["bias"] for path, layer in built.items()}
        sqnr = _compare(net, data)
        correct_biases(net, means.found, data.correcting)
        corrected = _compare(net, data)
        layer_sqnr = outputs.compare(net, few, at)
    biases = {path: layer._buffers["bias"] for path, layer in built.items()}
    for path, bias in before.items():
        built[path]._buffers["bias"] = bias
    return Variant(net, at, built, biases, layer_sqnr, sqnr, corrected, equalized, floats)


def _int8_layers(net: Net, at: dict[str, Edge]) -> dict[str, nn.Module]:
    """The int8 layer of each float one, by path, in its place in ``net.model``."""
    built: dict[str, nn.Module] = {}
    for node in net.graph.nodes:
        if node.target is steps.layer and path_of(node) not in built:
            module = net.model.get_submodule(path_of(node))
            cls: Any = replacement(module, "static")
            scale, zero_point = at[net.edges.names[net.edges.owner[node.args[1]]]]
            built[path_of(node)] = cls.from_float(
                module, input_scale=scale, input_zero_point=zero_point
            )
    for path, layer in built.items():
        put(net.model, [path], layer)
    return built


def _compare(net: Net, data: Data) -> float:
    inputs = [data.comparing[name] for name in net.tensors]
    found = _floats(fx.Interpreter(net.model, graph=net.graph).run(*inputs))
    signal = sum(float(x.double().square().sum()) for x in data.expected)
    noise = sum(
        float((x.double() - y.double()).square().sum())
        for x, y in zip(data.expected, found, strict=True)
    )
    return decibels(signal, noise) or 0.0


def decibels(signal: float, noise: float) -> float | None:
    """``10 log10(signal / noise)``; None for a signal of 0."""
    if not (math.isfinite(signal) and math.isfinite(noise)) or signal == 0:
        return None
    return 10 * math.log10(signal / noise) if noise else math.inf


class _Outputs(Steps):
    """What each layer returns, kept to compare the int8 layer's with."""

    def __init__(self, net: Net) -> None:
        super().__init__(net)
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.target is steps.layer:
            self.found.setdefault(path_of(n), value)
        return value

    def compare(self, net: Net, inputs: Inputs, at: dict[str, Edge]) -> dict[str, float | None]:
        """The SQNR of each int8 layer's output in the int8 model."""
        other = _Codes(net)
        other.values(inputs)
        result = {}
        for path, y in self.found.items():
            noise = float((y.double() - other.found.pop(path).double()).square().sum())
            result[path] = decibels(float(y.double().square().sum()), noise)
        return result


class _Codes(Steps):
    def __init__(self, net: Net) -> None:
        super().__init__(net)
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.target in (calls.conv, calls.conv_of_rows, calls.linear):
            out: Any = n.args[-1]
            dtype, scale, zero_point = out
            floats = (value.float() - zero_point) * scale if dtype == calls.CODES else value
            self.found.setdefault(path_of(n), floats)
        return value
