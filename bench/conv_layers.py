"""The convolutions of a model, with what can be fused behind each: found by torch.fx."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

ADDS = (operator.add, operator.iadd, torch.add)
ACTIVATIONS = {nn.ReLU: "relu", nn.ReLU6: "relu6", F.relu: "relu", F.relu6: "relu6"}


@dataclass(frozen=True)
class ConvLayer:
    """A convolution ``[N, C, H, W] -> [N, OC, OH, OW]`` with folded BatchNorm and its epilogue.

    ``residual``: a tensor of the output's shape is added before the activation.
    """

    shape: tuple[int, int, int, int]
    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    activation: str
    residual: bool

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """[N, OC, OH, OW]."""
        sides = zip(
            self.shape[2:], self.kernel, self.stride, self.padding, self.dilation, strict=True
        )
        high, wide = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)
        return self.shape[0], self.channels, high, wide

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """[OC, C / groups, KH, KW]."""
        return self.channels, self.shape[1] // self.groups, *self.kernel

    @property
    def macs(self) -> int:
        """Multiply-adds, those with padding included."""
        return torch.Size(self.out_shape).numel() * torch.Size(self.weight_shape[1:]).numel()

    @property
    def elements(self) -> int:
        """Of the input, the weight, the output and the residual: bytes where they are int8."""
        out = torch.Size(self.out_shape).numel() * (2 if self.residual else 1)
        return torch.Size(self.shape).numel() + torch.Size(self.weight_shape).numel() + out

    @property
    def name(self) -> str:
        """The shape in one word, such as ``1x64x56x56-256_1x1`` and ``..._3x3/2_dw+add+relu``."""
        grouped = "_dw" if self.groups == self.shape[1] > 1 else f"_g{self.groups}"
        return (
            f"{'x'.join(map(str, self.shape))}-{self.channels}_{self.kernel[0]}x{self.kernel[1]}"
            f"{'' if max(self.stride) == 1 else f'/{self.stride[0]}'}"
            f"{'' if max(self.dilation) == 1 else f'_d{self.dilation[0]}'}"
            f"{grouped if self.groups > 1 else ''}{'+add' * self.residual}"
            f"{'' if self.activation == 'none' else f'+{self.activation}'}"
        )


@torch.no_grad()
def layers_of(model: nn.Module, x: Tensor) -> Counter[ConvLayer]:
    """Return the different convolutions of ``model`` on ``x``, in order, and how often each runs.

    Model and ``x`` may lie on the meta device: only shapes are looked at.
    """
    traced = fx.symbolic_trace(model)
    shapes = InputShapes(traced)
    shapes.run(x)
    found: Counter[ConvLayer] = Counter()
    taken: set[fx.Node] = set()
    for node, shape in shapes.seen.items():
        conv = traced.get_submodule(str(node.target))
        assert isinstance(conv, nn.Conv2d)
        activation, residual = epilogue(traced, node, taken)
        found[layer(conv, shape, activation, residual)] += 1
    return found


class InputShapes(fx.Interpreter):
    """Notes the input shape of every Conv2d."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.seen: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run the node as it is."""
        if n.op == "call_module" and isinstance(self.fetch_attr(str(n.target)), nn.Conv2d):
            self.seen[n] = tuple(self.env[n.args[0]].shape)
        return super().run_node(n)


def epilogue(traced: fx.GraphModule, node: fx.Node, taken: set[fx.Node]) -> tuple[str, bool]:
    """Return the activation behind a convolution, and whether it adds something before.

    Of two convolutions whose outputs are added, the first one takes the sum.
    """
    residual, user = False, only_user(node)
    if user is not None and isinstance(module_of(traced, user), nn.BatchNorm2d):
        user = only_user(user)
    if user is not None and user.target in ADDS and user not in taken:
        taken.add(user)
        residual, user = True, only_user(user)
    if user is None or user in taken:
        return "none", residual
    kind = type(module_of(traced, user)) if user.op == "call_module" else user.target
    return ACTIVATIONS.get(kind, "none"), residual


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the node that reads ``node``, None where several do."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def module_of(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that ``node`` calls."""
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def layer(conv: nn.Conv2d, shape: tuple[int, ...], activation: str, residual: bool) -> ConvLayer:
    """Return the layer of one Conv2d on an input of ``shape``."""
    n, c, h, w = shape
    assert not isinstance(conv.padding, str)
    high, wide = conv.padding
    return ConvLayer(
        (n, c, h, w),
        conv.out_channels,
        (conv.kernel_size[0], conv.kernel_size[1]),
        (conv.stride[0], conv.stride[1]),
        (high, wide),
        (conv.dilation[0], conv.dilation[1]),
        conv.groups,
        activation,
        residual,
    )
