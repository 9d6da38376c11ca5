"""quantize(calibration=): kinds of batches, what is refused, and models that do not trace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pyops
from pyops.graph.net_forward import net_of, why_not_traced
from pyops.testing.compare import sqnr_db


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.bn2, self.fc = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.bn2(self.conv2(self.conv1(x).relu())).relu().mean((2, 3)))


def case() -> tuple[nn.Module, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = Small().eval().requires_grad_(False)
    return model, [torch.randn(4, 3, 8, 8) for _ in range(3)]


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.bn(self.conv(x)).relu()
        return self.fc(x.mean((2, 3))) if float(x.sum()) > 0 else self.fc(x.amax((2, 3)))


def test_layer_by_layer_where_a_model_does_not_trace(tmp_path):
    torch.manual_seed(0)
    model, x = Untraceable().eval(), torch.randn(4, 3, 9, 9)
    new = pyops.quantize(model, calibration=[x])
    assert net_of(new) is None
    assert "each layer quantizes its input" in why_not_traced(new)
    assert type(new.bn) is nn.BatchNorm2d
    assert sqnr_db(new(x), model(x)) > 28
    assert any("returns floats" in one for one in pyops.explain(new).graphs)
    pyops.save(new, tmp_path / "net")
    loaded = pyops.load(tmp_path / "net", Untraceable())
    assert torch.equal(loaded(x), new(x))
    assert pyops.explain(loaded) == pyops.explain(new)


def test_batches_of_every_kind():
    model, batches = case()
    expected = pyops.quantize(model, calibration=batches)(batches[0])
    kinds = {
        "tuples": [(x,) for x in batches],
        "lists": [[x] for x in batches],
        "dicts": [{"x": x} for x in batches],
        "a generator": (x for x in batches),
    }
    for how, given in kinds.items():
        assert torch.equal(pyops.quantize(model, calibration=given)(batches[0]), expected), how
    pairs = [(x, "label") for x in batches]
    new = pyops.quantize(model, calibration=pairs, forward=lambda m, pair: m(pair[0]))
    assert torch.equal(new(batches[0]), expected)
    changed = pyops.quantize(copy.deepcopy(model), calibration=batches, inplace=True)
    assert torch.equal(changed(batches[0]), expected)


def test_bad_calibration():
    model, batches = case()
    with pytest.raises(ValueError, match="calibration holds no batch"):
        pyops.quantize(model, calibration=[])
    with pytest.raises(TypeError, match="calibration is a Tensor"):
        pyops.quantize(model, calibration=batches[0])
    with pytest.raises(TypeError, match="but is str: pass forward="):
        pyops.quantize(model, calibration=["cat.png"])
    with pytest.raises(ValueError, match="does not call the model"):
        pyops.quantize(model, calibration=batches, forward=lambda m, x: None)
    with pytest.raises(ValueError, match="expected one of 'entropy'"):
        pyops.quantize(model, calibration=batches, observer="best")
    with pytest.raises(ValueError, match="does not go with calibration"):
        pyops.quantize(model, calibration=batches, weights="int4")
    with pytest.raises(ValueError, match="needs calibration="):
        pyops.quantize(model, forward=lambda m, x: m(x))
    model.bn2.running_mean[3] = float("nan")
    with pytest.raises(ValueError, match="output of 'conv2' holds NaN"):
        pyops.quantize(model, calibration=batches)
    with pytest.raises(ValueError, match="output of 'x' holds NaN"):
        pyops.quantize(case()[0], calibration=[batches[0] * float("nan")])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Conv1d(4, 8, 3), [4, 11]), (nn.Conv2d(16, 8, 3), [16, 9, 9]), (nn.Linear(64, 64), [64])],
)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("workflow", ["quantize", "sparsify"])
def test_samples_without_a_batch_dimension(workflow, layer, shape, count):
    """Each is one sample: no dimension of it is taken for the batch."""
    torch.manual_seed(0)
    model, batches = nn.Sequential(layer, nn.ReLU()).eval(), list(torch.randn(count, *shape))
    if workflow == "quantize":
        made = pyops.quantize(model, calibration=batches)
    else:
        made = pyops.sparsify(model, dtype="int8", calibration=batches)
    with torch.no_grad():
        expected = model(batches[0])
    assert made(batches[0]).shape == expected.shape
    assert sqnr_db(made(batches[0]), expected) > 25
    assert f"'0' sees one sample {shape} without a batch" in pyops.explain(made).graphs[0]


class Queried(nn.Module):
    """One Linear sees a vector of the model's, the other one samples."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
        self.query = nn.Parameter(torch.ones(64))

    def forward(self, x):
        return self.a(x) + self.b(self.query)


def test_a_vector_of_the_models_own():
    torch.manual_seed(0)
    model, x = Queried().eval(), torch.randn(4, 64)
    made = pyops.quantize(model, calibration=[x])
    assert "'b' sees one sample [64]" in pyops.explain(made).graphs[0]
    with torch.no_grad():
        assert sqnr_db(made(x), model(x)) > 25
