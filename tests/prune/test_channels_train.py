"""Layers that run in train mode alone lose channels with the rest, or the model is refused."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyops.prune.channels import channel_groups, channel_plan, prune_channels
from pyops.testing.channels import IMAGES, conv, filled, pooled, reasons


class Outputs(NamedTuple):
    logits: torch.Tensor
    aux: torch.Tensor


class Inception(nn.Module):
    """Two branches that are concatenated, and an auxiliary head as GoogLeNet's."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 16, 3)
        self.one, self.three = conv(16, 8), conv(16, 16, 3)
        self.norm = nn.BatchNorm2d(24)
        self.aux = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), conv(24, 8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 12)
        )
        self.aux_fc, self.dropout = nn.Linear(12, 5), nn.Dropout(0.7)
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        x = self.norm(torch.cat([self.one(x), self.three(x)], 1)).relu()
        aux = None
        if self.training:
            aux = self.aux_fc(F.dropout(self.dropout(self.aux(x).relu()), 0.5, self.training))
        logits = self.fc(pooled(x))
        return Outputs(logits, aux) if self.training else logits


def test_auxiliary_heads_become_smaller():
    model = filled(Inception())
    small = prune_channels(model, 0.5, example_inputs=IMAGES, round_to=1)
    assert not small.training
    assert small.stem.out_channels == 8
    assert (small.aux[1].in_channels, small.aux[1].out_channels) == (12, 4)
    assert (small.aux[4].in_features, small.aux[4].out_features) == (4 * 16, 6)
    assert small.aux_fc.weight.shape == (5, 6)
    small.train()
    before = small.norm.running_mean.clone()
    found = small(IMAGES)
    assert found.aux.shape == found.logits.shape == (2, 5)
    (found.logits.sum() + found.aux.sum()).backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    assert not torch.equal(small.norm.running_mean, before)


def test_what_a_head_computes_is_that_of_the_channels_that_stay():
    model = filled(Inception())
    small = prune_channels(model, 0.5, example_inputs=IMAGES, round_to=1)
    plan = channel_plan(small)["layers"]
    kept = plan["norm"]["out"]["kept"]
    features = torch.randn(2, 24, 8, 8, dtype=torch.float64)
    cut = torch.zeros_like(features)
    cut[:, kept] = features[:, kept]
    hidden, rest = model.aux[:3](cut), plan["aux.1"]["out"]["kept"]
    assert torch.allclose(small.aux[:3](features[:, kept]), hidden[:, rest])


def test_the_model_is_left_alone():
    model = filled(Inception()).train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.random.get_rng_state()
    small = prune_channels(model, 0.5, example_inputs=IMAGES, round_to=1)
    assert small.training
    assert small.dropout.training
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_outputs_of_train_mode_keep_their_sizes():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = conv(3, 8), conv(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            x = self.b(self.a(x).relu())
            return (self.fc(pooled(x)), x) if self.training else self.fc(pooled(x))

    found = reasons(filled(Deep()))
    assert found == {
        "a": None,
        "b": "they are the model's output",
        "fc": "they are the model's output",
    }


class Picky(Inception):
    def forward(self, x):
        if self.training and x.sum() > 0:
            return self.aux_fc(self.aux(x))
        return self.fc(
            pooled(self.norm(torch.cat([self.one(self.stem(x)), self.three(self.stem(x))], 1)))
        )


@pytest.mark.parametrize("inplace", [False, True])
def test_a_train_mode_that_cannot_be_traced(inplace):
    model = filled(Picky())
    message = (
        "prune_channels: no call in eval mode reaches aux.1, and the graph of Picky in train mode "
        "cannot be made: symbolically traced variables cannot be used as inputs to control flow; "
        "a model without it can be pruned"
    )
    with pytest.raises(ValueError, match="aux") as found:
        prune_channels(model, 0.5, example_inputs=IMAGES, round_to=1, inplace=inplace)
    assert str(found.value) == message
    assert model.stem.out_channels == 16
    with pytest.raises(ValueError, match=r"^channel_groups: no call in eval mode reaches aux\.1"):
        channel_groups(model, IMAGES)
    model.aux = model.aux_fc = None
    assert prune_channels(model, 0.5, example_inputs=IMAGES, round_to=1).stem.out_channels == 8


def test_layers_that_never_run_keep_their_sizes():
    model = filled(Inception())
    model.unused = nn.Linear(24, 24)
    small = prune_channels(model, 0.5, example_inputs=IMAGES, round_to=1)
    assert small.unused.weight.shape == (24, 24)


def test_a_head_that_computes_with_sizes_is_found():
    class Scaled(Inception):
        def forward(self, x):
            x = self.stem(x)
            if self.training:
                return self.head(x)
            return self.fc(pooled(self.norm(torch.cat([self.one(x), self.three(x)], 1))))

        def head(self, x):
            return self.aux_fc(pooled(self.one(x)).repeat(1, 2)[:, :12] / self.stem.out_channels)

    with pytest.raises(ValueError, match=r"^prune_channels: in train mode: the forward of Scaled"):
        prune_channels(filled(Scaled()), 0.5, example_inputs=IMAGES, round_to=1)
