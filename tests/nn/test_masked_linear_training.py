"""MaskedLinear in an ordinary training loop, on sparse kernels and by dense products."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyops import backends
from pyops.nn import MaskedLinear
from pyops.testing.threads import on_threads

SPARSE = "last run by sparse kernels"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products on a busy machine wait for threads longer than they compute."""
    with on_threads(1):
        yield


class Data(torch.optim.Optimizer):
    """One of those that change ``parameter.data``, of which no version tells."""

    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(p.grad.data, alpha=-group["lr"])


@pytest.mark.skipif(not backends.compiled(), reason="without kernels all is dense")
@pytest.mark.parametrize(
    "make",
    [
        lambda p: Data(p, {"lr": 0.05}),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
        lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
    ],
)
def test_200_steps_keep_masked_weights_zero(
    make: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer],
) -> None:
    """And learn as the dense product does."""

    def train(kernel: str) -> list[float]:
        torch.manual_seed(0)
        net = nn.Sequential(MaskedLinear(256, 256), nn.ReLU(), MaskedLinear(256, 256))
        layers = [layer for layer in net if isinstance(layer, MaskedLinear)]
        for layer in layers:
            layer.set_mask(torch.rand(256, 256) < 0.1)
            layer.kernel = kernel
        x, target = torch.randn(32, 256), torch.randn(32, 256)
        optimizer, losses = make(net.parameters()), []
        for _ in range(200):
            optimizer.zero_grad()
            loss = F.mse_loss(net(x), target)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            for layer in layers:
                assert bool((layer.weight.grad[~layer.weight_mask] == 0).all())
                assert bool((layer.weight[~layer.weight_mask] == 0).all())
        assert all((layer.remark == SPARSE) == (kernel == "auto") for layer in layers)
        return losses

    sparse, plain = train("auto"), train("dense")
    assert sparse[-1] < sparse[0]
    assert abs(sparse[-1] - plain[-1]) < 0.02 * plain[0]
