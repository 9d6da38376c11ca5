"""The comparison at the end of prune_channels: what it finds, and what it lets pass."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyops.prune.channels import channel_groups, channel_plan, prune_channels
from pyops.testing.channels import IMAGES, conv, net, pooled


class BySize(nn.Module):
    """Its forward reads the size of a layer, which no graph shows."""

    def __init__(self, last, bias=0.0, share=1.0):
        super().__init__()
        self.a, self.fc = conv(3, 8), nn.Linear(8, 4)
        nn.init.constant_(self.fc.bias, bias)
        self.last, self.share = last, share

    def forward(self, x):
        scale = 1 + self.share * (self.a.out_channels / 8 - 1)
        return self.last(self.fc(pooled(self.a(x)) * scale))


def identity(x):
    return x


def with_narrow_part(x):
    return x.float().softmax(1).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("last", "bias", "share"),
    [
        (identity, 0.0, 1e-5),
        (identity, 1000.0, 1e-3),
        (identity, 1e6, 1.0),
        (with_narrow_part, 0.0, 1.0),
        (lambda x: x.argmax(1), 0.0, 20.0),
        (lambda x: (1000 * x).round().long(), 0.0, 1.0),
        (lambda x: x > 0.1, 0.0, 20.0),
    ],
)
def test_wrong_results_are_found(last, bias, share, dtype):
    """Neither a large bias nor integers hide them."""
    torch.manual_seed(0)
    model = BySize(last, bias, share).to(dtype).eval()
    x = torch.randn(8, 3, 4, 4, dtype=dtype)
    with pytest.raises(ValueError, match="its values are not those of the model without these"):
        prune_channels(model, 0.5, example_inputs=x, round_to=1)
    right = BySize(last, bias, 0.0).to(dtype).eval()
    assert prune_channels(right, 0.5, example_inputs=x, round_to=1).a.out_channels == 4


def test_a_model_that_runs_in_one_type_is_compared_in_it():
    class Single(BySize):
        def forward(self, x):
            return super().forward(x.float())

    for share, fits in ((0.0, True), (1.0, False)):
        torch.manual_seed(0)
        model = Single(identity, 1000.0, share).eval()
        x = torch.randn(8, 3, 4, 4)
        if fits:
            assert prune_channels(model, 0.5, example_inputs=x, round_to=1)
            continue
        with pytest.raises(ValueError, match="its values are not those"):
            prune_channels(model, 0.5, example_inputs=x, round_to=1)


INFINITE_AT_ZERO = {
    "log": lambda x: x.abs().log(),
    "rsqrt": lambda x: torch.rsqrt(x.abs()),
    "div": lambda x: x / x.abs(),
    "pow": lambda x: x.abs() ** -0.5,
    "reciprocal": lambda x: 1 / x,
}


@pytest.mark.parametrize("name", INFINITE_AT_ZERO)
def test_functions_that_are_infinite_at_0(name):
    """What leaves is not zero before it is gone."""
    call = INFINITE_AT_ZERO[name]

    def forward(m, x):
        return m.fc(pooled(call(m.a(x))))

    model = net(forward, a=conv(3, 8, bias=False), fc=nn.Linear(8, 4))
    small = prune_channels(model, 0.5, example_inputs=IMAGES, round_to=1)
    kept = channel_plan(small)["layers"]["a"]["out"]["kept"]
    with torch.no_grad():
        features = pooled(call(model.a(IMAGES)))[:, kept]
        expected = F.linear(features, model.fc.weight[:, kept], model.fc.bias)
        assert torch.allclose(small(IMAGES), expected, rtol=1e-9)


def test_results_that_are_nowhere_finite():
    model = net(lambda m, x: m.fc(pooled(m.a(x) / 0)), a=conv(3, 8, bias=False), fc=nn.Linear(8, 4))
    message = "^prune_channels: on example_inputs the model returns nothing finite$"
    with pytest.raises(ValueError, match=message):
        prune_channels(model, 0.5, example_inputs=IMAGES, round_to=1)


class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(conv(3, 32), nn.Conv2d(32, 4, 1))

    def forward(self, x):
        return self.net(x) + 0 * torch.randn_like(x).sum()


def test_generators_are_the_callers(monkeypatch):
    """The CPU's stands where it stood; no accelerator's is given a seed."""
    model = Drawing().double()
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: False)
    before = torch.get_rng_state()
    channel_groups(model, IMAGES)
    assert torch.equal(torch.get_rng_state(), before)
    for options in ({"example_inputs": IMAGES}, {}):
        prune_channels(model, 0.5, round_to=1, **options)
        assert torch.equal(torch.get_rng_state(), before)
    assert not seeded
    chosen = [
        prune_channels(
            model, 0.5, round_to=1, criterion="random", example_inputs=IMAGES,
            generator=torch.default_generator,
        )
        for _ in range(2)
    ]  # fmt: skip
    plans = [channel_plan(one)["layers"] for one in chosen]
    assert plans[0] != plans[1]  # of the one generator given, numbers are taken
