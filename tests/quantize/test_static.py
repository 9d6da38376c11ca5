"""quantize(calibration=): small nets against fake quantization written out by hand."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyops
from pyops.graph.net_forward import net_of
from pyops.nn import Int8Conv1d, Int8Conv2d, StaticInt8Linear
from pyops.testing.compare import sqnr_db


def settled(model: nn.Module, *shape: int) -> nn.Module:
    """Batch norms that are not the identity."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        model.train()
        for _ in range(20):
            model(torch.randn(8, *shape))
    return model.eval().requires_grad_(False)


class Fake:
    """Fake quantization with the numbers of a quantized model."""

    def __init__(self, quantized: nn.Module) -> None:
        self.model = quantized
        self.edges = net_of(quantized).plan.edges
        self.used: set[str] = set()

    def __call__(self, name: str, x: torch.Tensor) -> torch.Tensor:
        self.used.add(name)
        scale, zero = self.edges[name]
        code = (torch.round(x.double() / scale) + zero).clamp(0, 255)
        return ((code - zero) * scale).float()

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        layer = self.model.get_submodule(name)
        top, bottom, left, right = layer.padding
        x = F.pad(x, (left, right, top, bottom))
        weight, bias = layer.weight, layer.bias
        return F.conv2d(x, weight, bias, layer.stride, 0, layer.dilation, layer.groups)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        layer = self.model.get_submodule(name)
        return F.linear(x, layer.weight, layer.bias)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, 1, "same"), nn.BatchNorm2d(16)
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(16, 10)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        y += x
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.relu(y), 1), 1))

    @staticmethod
    def reference(q: Fake, x: torch.Tensor) -> torch.Tensor:
        x = q("conv1", q.conv("conv1", q("x", x)).relu())
        y = q("conv2", (q.conv("conv2", x) + x).relu())
        return q.linear("fc", q("adaptive_pool", y.mean((2, 3))))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, padding=1)
        self.act = nn.Hardswish()
        self.depthwise = nn.Conv2d(16, 16, 5, padding=2, groups=16, bias=False)
        self.last = nn.Conv2d(16, 4, 1)
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x):
        y = torch.cat([F.relu6(self.a(x)), self.act(self.b(x))], dim=1)
        y = self.up(F.max_pool2d(y, 3, 2, 1))
        return self.last(F.leaky_relu(self.depthwise(y), 0.1))

    @staticmethod
    def reference(q: Fake, x: torch.Tensor) -> torch.Tensor:
        x = q("x", x)
        a = q("concat", q.conv("a", x).clamp(0, 6))  # only the concatenation reads it
        b = q("concat", F.hardswish(q.conv("b", x)))
        y = F.max_pool2d(torch.cat([a, b], 1), 3, 2, 1)
        y = F.interpolate(y, scale_factor=2)
        return q.conv("last", q("depthwise", F.leaky_relu(q.conv("depthwise", y), 0.1)))


class Sums(nn.Module):
    """A sum that no layer can take, an average, a PReLU, a norm behind a layer without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.prelu = nn.Conv2d(4, 8, 3), nn.PReLU(8)
        self.b, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 4 * 4, 6)

    def forward(self, x):
        x = self.prelu(self.a(x))
        y = F.silu(self.norm(self.b(x)))
        z = F.relu(x + y)
        return F.relu(self.fc(F.avg_pool2d(z, 2).view(x.size(0), -1)))

    @staticmethod
    def reference(q: Fake, x: torch.Tensor) -> torch.Tensor:
        x = q("a", F.prelu(q.conv("a", q("x", x)), q.model.prelu.weight))
        y = q("b", F.silu(q.conv("b", x)))
        z = F.avg_pool2d(q("add", (x + y).relu()), 2)
        return F.relu(q.linear("fc", q("pool", z).flatten(1)))


NETS = {"residual": (Residual, 3), "branches": (Branches, 4), "sums": (Sums, 4)}


def case(name: str) -> tuple[nn.Module, list[torch.Tensor]]:
    cls, channels = NETS[name]
    torch.manual_seed(0)
    model = settled(cls(), channels, 10, 10)
    torch.manual_seed(2)
    return model, [torch.randn(4, channels, 10, 10) for _ in range(4)]


@pytest.mark.parametrize("observer", ["min_max", "mse"])
@pytest.mark.parametrize("name", NETS)
def test_against_fake_quantization(name, observer):
    model, batches = case(name)
    before = copy.deepcopy(model.state_dict())
    new = pyops.quantize(model, calibration=iter(batches), observer=observer)
    fake = Fake(new)
    expected = model.reference(fake, batches[0])
    found = new(batches[0])
    assert fake.used == set(fake.edges)  # the reference knows every edge, so there are no others
    # A value on the border of two codes may round to either, and so move what follows by a step.
    assert sqnr_db(found, expected) > 35
    assert sqnr_db(found, model(batches[0])) > 25
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert pyops.explain(new).islands == ()


@pytest.mark.parametrize("name", NETS)
def test_copies_files_and_meta_skeletons(name, tmp_path):
    model, batches = case(name)
    new = pyops.quantize(model, calibration=batches)
    expected = new(batches[0])
    pyops.save(new, tmp_path / "net.safetensors")
    with torch.device("meta"):
        bare = type(model)()
    others = {
        "deepcopy": copy.deepcopy(new),
        "pickle": pickle.loads(pickle.dumps(new)),
        "load": pyops.load(tmp_path / "net.safetensors", type(model)()),
        "meta": pyops.load(tmp_path / "net.safetensors", bare),
    }
    for how, other in others.items():
        assert torch.equal(other(batches[0]), expected), how
        assert net_of(other).owner is other
        assert pyops.explain(other) == pyops.explain(new), how


def test_a_net_that_is_another_one_is_refused(tmp_path):
    model, batches = case("residual")
    pyops.save(pyops.quantize(model, calibration=batches), tmp_path / "net")
    other = Residual()
    other.relu = nn.Sigmoid()
    with pytest.raises(ValueError, match="module 'relu' is a Sigmoid"):
        pyops.load(tmp_path / "net", other)

    class Residual2(Residual):
        def forward(self, x):
            return self.fc(self.relu(self.bn1(self.conv1(x))).amax((2, 3)))

    other = Residual2()
    Residual2.__name__ = "Residual"
    with pytest.raises(ValueError, match="codes only in the"):
        pyops.load(tmp_path / "net", other)


def test_conv1d_net():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(3, 8, 5, padding=2, bias=False),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3, groups=8, dilation=2),
        nn.SiLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    model = settled(model, 3, 30)
    batches = [torch.randn(4, 3, 30) for _ in range(3)]
    new = pyops.quantize(model, calibration=batches)
    assert type(new[0]) is type(new[4]) is Int8Conv1d
    assert type(new[8]) is StaticInt8Linear
    assert sqnr_db(new(batches[0]), model(batches[0])) > 28
    assert pyops.explain(new).islands == ()
    assert new[0].weight.shape == model[0].weight.shape


class Island(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 1) for _ in range(3))

    def forward(self, x):
        x = self.a(x)
        x = self.b(x * torch.sigmoid(x))
        return self.c(F.softplus(x)).softmax(1)


def test_islands_are_counted_and_named():
    torch.manual_seed(0)
    model, x = Island().eval(), torch.randn(2, 4, 6, 6)
    report = pyops.explain(pyops.quantize(model, calibration=[x]))
    assert report.islands == (("sigmoid", "mul"), ("softplus",))
    assert "2 float island" in report.graphs[0]
    assert '"islands"' in report.to_json()


class OwnConv(nn.Conv2d):
    def forward(self, input):
        return super().forward(input) * 2


def test_what_stays_in_float_and_why():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        OwnConv(8, 8, 3),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 8, 1),
        nn.ConvTranspose2d(8, 8, 2),
        nn.Conv2d(8, 8, 1),
    ).eval()
    model[3].register_forward_hook(lambda *_: None)
    x = torch.randn(2, 3, 9, 9)
    new = pyops.quantize(model, calibration=[x])
    assert [type(layer) for layer in new[1:5]] == [type(layer) for layer in model[1:5]]
    assert type(new[0]) is type(new[5]) is Int8Conv2d
    rows = {row.name: row for row in pyops.explain(new).rows}
    assert "subclass of Conv2d with its own forward" in rows["1"].reason
    assert "padding_mode is 'reflect'" in rows["2"].reason
    assert "has hooks" in rows["3"].reason
    assert sqnr_db(new(x), model(x)) > 30
    assert len(pyops.explain(new).islands) == 1
    with pytest.raises(ValueError, match="strict=True and 3 layer"):
        pyops.quantize(model, calibration=[x], strict=True)
    some = pyops.quantize(model, calibration=[x], exclude="5")
    assert type(some[5]) is nn.Conv2d
    assert {r.name: r for r in pyops.explain(some).rows}["5"].reason == "excluded (exclude=)"


def test_parts_called_by_themselves_and_changes_after_quantizing():
    model, batches = case("residual")
    new = pyops.quantize(model, calibration=batches)
    x = batches[0]
    y = new.relu(new.bn1(new.conv1(x)))  # floats in and out, the norm folded in
    assert sqnr_db(y, model.relu(model.bn1(model.conv1(x)))) > 30
    seen = []
    handle = new.conv2.register_forward_hook(lambda *_: seen.append(1))
    hooked = new(x)  # as written, so that the hook is called
    handle.remove()
    assert seen == [1]
    assert sqnr_db(hooked, model(x)) > 25
    with pytest.raises(RuntimeError, match="requires grad"):
        new(x.clone().requires_grad_())
    with pytest.raises(RuntimeError, match="train mode"):
        copy.deepcopy(new).train()(x)
