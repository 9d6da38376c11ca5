"""A small model with everything that a file has to keep, and the file it was saved to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import pyops


class Net(nn.Module):
    """Tied and shared layers, a float Linear, buffers of both kinds, channels_last weights."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 64)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.first = nn.Linear(64, 64)
        self.tied = nn.Linear(64, 64)
        self.tied.weight = self.first.weight
        self.again = self.tied
        self.norm = nn.BatchNorm1d(64)
        self.lstm = nn.LSTM(64, 64)
        self.small = nn.Linear(64, 3)
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("seen", torch.tensor(7))
        self.register_buffer("table", torch.randn(64), persistent=False)

    def forward(self, ids):
        x = self.norm(self.tied(torch.relu(self.first(self.embedding(ids)))))
        x = self.lstm(self.again(x) + self.table)[0]
        return self.head(x), self.small(x), self.conv(torch.ones(1, 3, 5, 5))


def build(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def facts_of(skeleton):
    facts = []
    for name, module in skeleton.named_modules(remove_duplicate=False):
        tensors = [*module._parameters.items(), *module._buffers.items()]
        facts.append((name, id(module), module.training, sorted(module.__dict__)))
        for key, tensor in tensors:
            if tensor is not None:
                value = tensor.detach().clone().double()
                facts.append((key, id(tensor), tensor._version, tensor.requires_grad, value.sum()))
    return repr(facts)


@pytest.fixture
def make():
    """``make(seed)``: the float model."""
    return build


@pytest.fixture
def snapshot():
    """``snapshot(model)``: equal before and after for a model that nothing touched."""
    return facts_of


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    """The converted model, saved at ``path``."""
    model = pyops.quantize(build())
    pyops.save(model, path)
    return model
