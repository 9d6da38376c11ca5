"""What prune_channels refuses, word for word, with nothing changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pyops.prune.channels import prune_channels

X = torch.randn(2, 3, 4, 4)


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else self.conv(-x)


class Scaled(nn.Module):
    """Divides by a number of channels that it asks a layer for: no graph shows that."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.b(self.a(x) / self.a.out_channels)


class Guarded(Scaled):
    """Refuses another number of channels than that it was made with."""

    def forward(self, x):
        if self.a.out_channels != 8:
            raise RuntimeError("8 channels are expected")
        return self.b(self.a(x))


class Sized(Scaled):
    """Returns as many channels as one of its layers makes."""

    def forward(self, x):
        return self.b(self.a(x)).expand(-1, 4, 4, 4).mean(1).view(-1, 2 * self.a.out_channels)


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.handle = (i for i in range(3))


def not_finite():
    model = plain()
    with torch.no_grad():
        model[0].weight[0, 0] = torch.inf
    return model


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (plain().forward, {}, TypeError, "prune_channels takes an nn.Module, but got method"),
        (
            torch.jit.trace(plain(), X),
            {},
            TypeError,
            "the model (TopLevelTracedModule) is a ScriptModule: prune_channels the Python model it"
            " came from",
        ),
        (
            plain(),
            {"sparsity": "0.5"},
            TypeError,
            "prune_channels: sparsity is '0.5', expected a number",
        ),
        (
            plain(),
            {"sparsity": True},
            TypeError,
            "prune_channels: sparsity is True, expected a number",
        ),
        (
            plain(),
            {"sparsity": 1},
            ValueError,
            "prune_channels: sparsity is 1, expected above 0 and below 1",
        ),
        (
            plain(),
            {"sparsity": 0.0},
            ValueError,
            "prune_channels: sparsity is 0.0, expected above 0 and below 1",
        ),
        (
            plain(),
            {"sparsity": float("nan")},
            ValueError,
            "prune_channels: sparsity is nan, expected above 0 and below 1",
        ),
        (
            plain(),
            {"criterion": "l3"},
            ValueError,
            "prune_channels: criterion is 'l3', expected one of 'bn', 'l1', 'l2', 'random'",
        ),
        (
            plain(),
            {"scope": "model"},
            ValueError,
            "prune_channels: scope is 'model', expected one of 'layer', 'global'",
        ),
        (
            plain(),
            {"round_to": 0},
            ValueError,
            "prune_channels: round_to is 0, expected at least 1",
        ),
        (
            plain(),
            {"round_to": 8.0},
            TypeError,
            "prune_channels: round_to is 8.0, expected an integer",
        ),
        (plain(), {"least": -1}, ValueError, "prune_channels: least is -1, expected at least 1"),
        (plain(), {"least": None}, TypeError, "prune_channels: least is None, expected an integer"),
        (
            plain(),
            {"criterion": "random", "generator": 0},
            TypeError,
            "prune_channels: generator is a int, expected a torch.Generator",
        ),
        (
            plain(),
            {"generator": torch.Generator()},
            ValueError,
            "prune_channels: generator is given, but criterion='l1' uses none",
        ),
        (
            plain(),
            {"include": "3"},
            ValueError,
            "include='3' matches nothing in the model",
        ),
        (
            plain(),
            {"exclude": "0"},
            ValueError,
            "prune_channels: nothing to remove in Sequential:\n"
            "  0 (8 channels): excluded (exclude=)\n"
            "  2 (4 channels): they are the model's output",
        ),
        (
            plain(),
            {"include": "2"},
            ValueError,
            "prune_channels: nothing to remove in Sequential:\n"
            "  0 (8 channels): not chosen by include=\n"
            "  2 (4 channels): they are the model's output",
        ),
        (
            plain(),
            {"sparsity": 0.1, "round_to": 8},
            ValueError,
            "prune_channels: nothing to remove in Sequential with sparsity=0.1:\n"
            "  0 (8 channels): 8 stay and not 7: multiples of 8\n"
            "  2 (4 channels): they are the model's output\n"
            "  round_to= takes other multiples",
        ),
        (
            plain(),
            {"sparsity": 0.01},
            ValueError,
            "prune_channels: nothing to remove in Sequential with sparsity=0.01:\n"
            "  0 (8 channels): its share is less than one channel\n"
            "  2 (4 channels): they are the model's output",
        ),
        (
            plain(),
            {"least": 8},
            ValueError,
            "prune_channels: nothing to remove in Sequential:\n"
            "  0 (8 channels): has 8 channels, least=8 stay\n"
            "  2 (4 channels): they are the model's output",
        ),
        (
            plain(),
            {"sparsity": 0.9, "least": 4, "scope": "global"},
            ValueError,
            "prune_channels: sparsity=0.9 removes 7 of 8 channels, but least=4 lets only 4 of them "
            "go",
        ),
        (
            nn.Sequential(nn.ReLU()),
            {},
            ValueError,
            "prune_channels: nothing to remove in Sequential: no layer with channels runs",
        ),
        (
            nn.Conv2d(3, 8, 1),
            {},
            ValueError,
            "prune_channels: the graph of Conv2d cannot be made: it is one layer, whose outputs are"
            " the model's",
        ),
        (
            Branching(),
            {},
            ValueError,
            "prune_channels: the graph of Branching cannot be made: symbolically traced variables "
            "cannot be used as inputs to control flow",
        ),
        (
            plain(),
            {"example_inputs": torch.zeros(1, 2, 4, 4)},
            ValueError,
            "prune_channels: the model fails on example_inputs: RuntimeError: Given groups=1, "
            "weight of size [8, 3, 1, 1], expected input[1, 2, 4, 4] to have 3 channels, but got 2 "
            "channels instead",
        ),
        (
            plain(),
            {"example_inputs": 3},
            TypeError,
            "example_inputs must be a tensor, a tuple of positional arguments or a dict of "
            "keywords, but is int",
        ),
        (
            nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)),
            {"example_inputs": None},
            ValueError,
            "prune_channels: example_inputs is None: it has no convolution to guess an input by: "
            "give example_inputs=",
        ),
        (
            Scaled(),
            {},
            ValueError,
            "prune_channels: the forward of Scaled depends on sizes that would change: its values "
            "are not those of the model without these channels",
        ),
        (
            Guarded(),
            {},
            ValueError,
            "prune_channels: the forward of Guarded depends on sizes that would change: 8 channels "
            "are expected",
        ),
        (
            Sized(),
            {},
            ValueError,
            "prune_channels: the forward of Sized depends on sizes that would change: it returns a "
            "tensor [4, 8], expected [2, 16]",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 8, 1, device="meta"), nn.Conv2d(8, 4, 1)),
            {},
            ValueError,
            "prune_channels: 0.weight is on the meta device: it has no values to compare",
        ),
        (
            not_finite(),
            {},
            ValueError,
            "prune_channels: the weights of 0 are not finite",
        ),
        (
            Locked(),
            {},
            TypeError,
            "prune_channels: Locked cannot be copied (cannot pickle 'generator' object)",
        ),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_refusals(model, options, error, message, inplace):
    state = copy.deepcopy(model.state_dict()) if isinstance(model, nn.Module) else {}
    arguments = {"sparsity": 0.5, "example_inputs": X, "round_to": 1, **options}
    with pytest.raises(error) as found:
        prune_channels(model, inplace=inplace, **arguments)
    assert str(found.value) == message
    if isinstance(model, nn.Module):
        assert "_pyops_channel_plan" not in model.__dict__
        for name, tensor in model.state_dict().items():
            assert tensor.shape == state[name].shape
            assert tensor.is_meta or torch.equal(tensor, state[name])
