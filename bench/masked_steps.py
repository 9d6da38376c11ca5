"""A training step of an MLP with masked weights, whatever multiplies: for a bench and its peers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from case import Call
from torch import Tensor, nn

from pyops.nn import MaskedLinear

# product(x, weight, mask, bias, layer)
Product = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]


def parameters(width: int, layers: int, sparsity: float) -> dict[str, Tensor]:
    """Return mask0, weight0 (0 where masked), bias0 and so on, ``[width, width]`` each."""
    rng = torch.Generator().manual_seed(0)
    tensors = {}
    for i in range(layers):
        mask = torch.rand(width, width, generator=rng) >= sparsity
        scale = (2.0 / max(1.0, (1 - sparsity) * width)) ** 0.5
        tensors[f"mask{i}"] = mask
        tensors[f"weight{i}"] = torch.randn(width, width, generator=rng) * scale * mask
        tensors[f"bias{i}"] = torch.randn(width, generator=rng)
    return tensors


def layer_count(tensors: dict[str, Tensor]) -> int:
    """Return how many layers there are."""
    return sum(name.startswith("mask") for name in tensors)


def module_step(tensors: dict[str, Tensor]) -> Call:
    """Return the same step, with the optimizer, of an ``nn.Sequential`` of ``MaskedLinear``."""
    with torch.inference_mode(False):
        net = nn.Sequential()
        for i in range(layer_count(tensors)):
            weight, bias = tensors[f"weight{i}"], tensors[f"bias{i}"]
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight, "bias": bias})
            masked = MaskedLinear.from_float(layer, tensors[f"mask{i}"])
            net.extend([nn.ReLU(), masked] if i else [masked])
        sgd = torch.optim.SGD(net.parameters(), lr=1e-12, momentum=0.9)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def step() -> Tensor:
        sgd.zero_grad()
        F.mse_loss(net(tensors["x"]), tensors["target"], reduction="sum").backward()
        sgd.step()
        grad = net[0].weight.grad
        assert isinstance(grad, Tensor)
        return grad

    return step


def gradient(tensors: dict[str, Tensor], product: Product, optimizer: bool) -> Call:
    """Return a step, forward and backward, that returns the first weight's gradient.

    With ``optimizer`` it ends with SGD with momentum, of a rate so small that all steps are alike.
    Calls leave the inference mode that they may run in.
    """
    layers = layer_count(tensors)
    with torch.inference_mode(False):
        weights = [tensors[f"weight{i}"].clone().requires_grad_() for i in range(layers)]
        biases = [tensors[f"bias{i}"].clone().requires_grad_() for i in range(layers)]
        both = [*weights, *biases]
        sgd = torch.optim.SGD(both, lr=1e-12, momentum=0.9) if optimizer else None

    @torch.inference_mode(False)
    @torch.enable_grad()
    def step() -> Tensor:
        h = tensors["x"]
        for i in range(layers):
            h = F.relu(h) if i else h
            h = product(h, weights[i], tensors[f"mask{i}"], biases[i], i)
        for parameter in both:
            parameter.grad = None
        F.mse_loss(h, tensors["target"], reduction="sum").backward()
        if sgd is not None:
            sgd.step()
        grad = weights[0].grad
        assert grad is not None
        return grad

    return step
