"""Whole convnets with fewer channels: they compute what those with zeros do, and multiply less."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from pyops.prune.channels import apply_channel_plan, channel_plan, prune_channels
from pyops.testing.channels import with_zeros
from pyops.testing.models import digits_cnn, mobilenet_v2, packages, resnet

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@functools.cache
def model_of(name):
    if name == "resnet50":
        return resnet.random_model(50)
    if name == "resnet18":
        return resnet.random_model(18)
    torch.manual_seed(0)
    model = mobilenet_v2.MobileNetV2()
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(X)
    return model.eval()


def products(model):
    """Multiplications for one image."""
    total = []

    def count(layer, args, output):
        total.append(output[0].numel() * layer.weight[0].numel())

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(X[:1])
    for hook in hooks:
        hook.remove()
    return sum(total)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("sparsity", [0.3, 0.5])
@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2"])
def test_convnets(name, sparsity, scope):
    whole(name, sparsity, scope)


def test_resnet18():
    small = whole("resnet18", 0.5, "layer")
    assert type(small) is resnet.ResNet
    assert small.layer4[1].conv2.weight.shape == (256, 256, 3, 3)
    assert small.fc.weight.shape == (1000, 256)


def whole(name, sparsity, scope):
    model = model_of(name)
    small = prune_channels(model, sparsity, scope=scope, example_inputs=X[:1], round_to=16)
    plan = channel_plan(small)
    before = sum(row["before"] for row in plan["groups"] if "output" not in row["note"])
    after = sum(row["after"] for row in plan["groups"] if "output" not in row["note"])
    assert 1 - sparsity - 0.05 < after / before < 1 - sparsity + 0.05
    if scope == "layer":
        assert products(small) < (1 - 0.8 * sparsity) ** 2 * products(model)
    counts = [row["after"] for row in plan["groups"]]
    assert all(count % 16 == 0 for count in counts if count not in (1000, 24, 8))
    with torch.no_grad():
        double = small.double()
        expected = with_zeros(model, plan).double()(X.double())
        found = double(X.double())
        assert torch.allclose(found, expected, rtol=1e-8, atol=1e-9 * float(expected.abs().max()))
        assert not torch.allclose(expected, model(X).double(), rtol=1e-2)
    with torch.device("meta"):
        cls = type(model)
        skeleton = cls() if name == "mobilenet_v2" else cls(int(name.removeprefix("resnet")))
    again = apply_channel_plan(skeleton, plan)
    again.load_state_dict(small.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(again.eval()(X.double()), found)
    return small


def test_digits_are_still_read():
    """A trained net loses little by the channels that score low, and more by any."""
    try:
        model, (digits, labels) = digits_cnn.load_model(), digits_cnn.load_digits()
    except packages.MissingPackageError as error:
        pytest.skip(str(error))

    def accuracy(**options):
        small = prune_channels(model, 0.5, example_inputs=digits[:1], round_to=1, **options)
        with torch.inference_mode():
            return float((small(digits[::5]).argmax(1) == labels[::5]).float().mean())

    assert accuracy() > accuracy(criterion="random") + 0.05
    assert accuracy(scope="global") > accuracy(scope="global", criterion="random") + 0.05
    assert accuracy(scope="global") > 0.97
