"""A training step of an MLP with masked weights, whatever multiplies: for a bench and its peers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from case import Call
from torch import Tensor

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
