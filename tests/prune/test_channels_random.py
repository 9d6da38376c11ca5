"""Random small graphs: the smaller model is the old one with zeros, whatever ties its channels."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from pyops.prune.channels import channel_plan, prune_channels
from pyops.testing.channels import with_zeros

SIZE = 6
X = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


class Steps(nn.Module):
    """Steps ``(name, sources)`` that each make one more value, all of one height and width."""

    def __init__(self, steps, flat):
        super().__init__()
        self.steps, self.flat = steps, flat
        self.layers = nn.ModuleDict()
        widths = [3]
        for index, (name, sources) in enumerate(steps):
            widths.append(self.make(index, name, [widths[source] for source in sources]))
        columns = widths[-1] * (SIZE * SIZE if flat else 1)
        self.head = nn.Linear(columns, 3)

    def make(self, index, name, widths):
        """The layer of a step, if it has one; how many channels it makes."""
        width, key = widths[0], str(index)
        kind, _, number = name.partition(" ")
        if kind == "conv":
            self.layers[key] = nn.Conv2d(width, int(number), 3, padding=1)
            return int(number)
        if kind == "deep":
            outputs = width * int(number)
            self.layers[key] = nn.Conv2d(width, outputs, 3, padding=1, groups=width)
            return outputs
        if kind == "grouped":
            groups = 2 if width % 2 == 0 else 1
            self.layers[key] = nn.Conv2d(width, 8, 1, groups=groups)
            return 8
        if kind == "norm":
            self.layers[key] = nn.BatchNorm2d(width)
        elif kind == "prelu":
            self.layers[key] = nn.PReLU(width)
        return sum(widths) if kind == "cat" else width

    def forward(self, x):
        values = [x]
        for index, (name, sources) in enumerate(self.steps):
            values.append(self.step(str(index), name, [values[source] for source in sources]))
        last = values[-1]
        return self.head(last.flatten(1) if self.flat else last.mean((2, 3)))

    def step(self, key, name, given):
        if key in self.layers:
            return self.layers[key](given[0])
        if name == "cat":
            return torch.cat(given, 1)
        if name == "relu":
            return given[0].relu()
        return given[0] + given[1] if name == "add" else given[0] * given[1].sigmoid()


ALONE = ["conv 5", "conv 8", "conv 8", "deep 1", "deep 2", "grouped", "norm", "prelu", "relu"]


@st.composite
def models(draw):
    """Steps whose sums meet equal widths."""
    steps, widths = [("conv 8", [0])], [3, 8]
    for _ in range(draw(st.integers(2, 8))):
        source = draw(st.integers(0, len(widths) - 1))
        equal = [i for i, width in enumerate(widths) if width == widths[source]]
        name = draw(st.sampled_from([*ALONE, "add", "mul", "cat"]))
        sources = [source]
        if name in ("add", "mul"):
            sources.append(draw(st.sampled_from(equal)))
        elif name == "cat":
            sources.append(draw(st.integers(0, len(widths) - 1)))
        total = sum(widths[one] for one in sources)
        if total > 40:
            continue
        steps.append((name, sources))
        known = {"conv": name[-1], "grouped": "8", "cat": str(total)}.get(name.split(" ")[0])
        times = int(name[-1]) if name.startswith("deep") else 1
        widths.append(int(known) if known else widths[source] * times)
    torch.manual_seed(draw(st.integers(0, 99)))
    model = Steps(steps, draw(st.booleans()))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
                layer.weight.normal_()
                layer.bias.normal_()
    return model.double().eval()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    model=models(),
    sparsity=st.sampled_from([0.2, 0.5, 0.8]),
    scope=st.sampled_from(["layer", "global"]),
    round_to=st.sampled_from([1, 4]),
)
def test_random_graphs(model, sparsity, scope, round_to):
    options = {"scope": scope, "round_to": round_to, "criterion": "random"}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        small = prune_channels(model, sparsity, example_inputs=X[:1], **options)
    except ValueError as error:
        text = str(error)
        assert text.startswith("prune_channels: nothing to remove in Steps") or "least=" in text
        return
    assert all(map(torch.equal, model.state_dict().values(), before.values()))
    cuts = channel_plan(small)["layers"]
    assert cuts
    with torch.no_grad():
        expected = with_zeros(model, channel_plan(small))(X)
        error = (small(X) - expected).abs().max()
    assert error <= 1e-10 * max(1.0, float(expected.abs().max()))
    for path, axes in cuts.items():
        layer = small.get_submodule(path)
        for axis, side in axes.items():
            names = {"out": ("out_channels", "out_features", "num_features", "num_parameters")}
            names["in"] = ("in_channels", "in_features")
            (count,) = [getattr(layer, name) for name in names[axis] if hasattr(layer, name)]
            assert count == len(side["kept"]) < side["channels"]
