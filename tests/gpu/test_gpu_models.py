"""Quantized models on CUDA: moved there, made there, saved and read across devices."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyops
from pyops.testing.compare import assert_same, sqnr_db
from pyops.testing.devices import on_device
from pyops.testing.models.keyword_encoder import KeywordEncoder

pytestmark = pytest.mark.gpu

EXAMPLE = {"ids": torch.arange(6).reshape(2, 3), "mask": torch.ones(2, 3, dtype=torch.int64)}
WEIGHTS = [None, "int8", "int4"]


class Net(nn.Module):
    """Everything that is fused around layers: norms, an activation, a residual, a gate."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.last = nn.LayerNorm(64), nn.LayerNorm(64)
        self.up, self.gate, self.down = nn.Linear(64, 96), nn.Linear(64, 96), nn.Linear(96, 64)
        self.register_buffer("shift", torch.linspace(-1, 1, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x + self.shift)
        return self.last(self.down(F.silu(self.gate(y)) * self.up(y)) + x)


def quantized(weights=None, device="cpu", **options):
    return pyops.quantize(Net().to(device), weights=weights, include=nn.Linear, **options)


def rows(model):
    return {row.name: row for row in pyops.explain(model).rows}


def states_equal(model, expected):
    found, wanted = model.state_dict(), expected.state_dict()
    assert list(found) == list(wanted)
    for name, value in found.items():
        assert_same(value.cpu(), wanted[name].cpu(), name)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("fuse", [True, False])
def test_there_and_back(weights, fuse):
    model, x = quantized(weights, fuse=fuse), torch.randn(5, 64)
    expected, here = model(x), rows(model)
    there = copy.deepcopy(model).cuda()
    states_equal(there, model)
    out = there(x.cuda())
    assert out.device.type == "cuda"
    assert sqnr_db(out.cpu(), expected) > (100 if fuse else 90)
    found = rows(there)
    assert {(row.kernel, row.isa) for row in found.values() if row.after != "LayerNorm"} == {
        ("reference", "reference")
    }
    assert {n: r.reason for n, r in found.items()} == {n: r.reason for n, r in here.items()}
    there.cpu()
    assert rows(there) == here
    assert_same(there(x), expected, "back on the CPU")


def test_a_fused_int8_model_gives_the_same_bits():
    """Rows are normed in one order everywhere, so all of it is."""
    model, x = quantized(), torch.randn(50, 64)
    assert_same(copy.deepcopy(model).cuda()(x.cuda()).cpu(), model(x), "fused")


@pytest.mark.parametrize("weights", WEIGHTS)
def test_made_there(weights):
    x = torch.randn(5, 64)
    there = quantized(weights, "cuda")
    assert {p.device.type for p in (*there.parameters(), *there.buffers())} == {"cuda"}
    if weights != "int4":
        states_equal(there, quantized(weights))
    assert all(row.kernel == "reference" for row in rows(there).values() if row.kernel)
    back = copy.deepcopy(there).cpu()
    assert sqnr_db(there(x.cuda()).cpu(), back(x)) > 90


def test_made_there_with_example_inputs(caplog):
    """Both are timed to the end; the reference is slower than torch's float layer, which stays."""
    x = torch.randn(200, 64, device="cuda")
    kept = quantized(None, "cuda", example_inputs=x)
    assert not any(row.kernel for row in rows(kept).values())
    assert "int8 is slower for every layer of Net" in caplog.text
    for name in ("up", "gate", "down"):
        row = rows(kept)[name]
        assert row.reason.startswith("float is faster here")
        assert 0 < row.ms_before < row.ms_after
    forced = quantized(None, "cuda", example_inputs=x, never_slower=False)
    assert {rows(forced)[name].kernel for name in ("up", "gate", "down")} == {"reference"}
    assert all(rows(forced)[name].sqnr_db > 30 for name in ("up", "gate", "down"))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("source", ["cpu", "cuda"])
@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_files_across_devices(tmp_path, weights, source, target):
    path = tmp_path / "model.safetensors"
    model, x = quantized(weights), torch.randn(5, 64)
    pyops.save(model.to(source), path)
    read = pyops.load(path, Net().to(target))
    assert {p.device.type for p in (*read.parameters(), *read.buffers())} == {target}
    states_equal(read, model)
    assert_same(read(x.to(target)), copy.deepcopy(model).to(target)(x.to(target)), "read")


def captured(device):
    model = KeywordEncoder().to(device)
    example = on_device(EXAMPLE, device)
    return pyops.quantize(model, include=nn.Linear, example_inputs=example, never_slower=False)


def agree(a, b):
    if isinstance(a, torch.Tensor):
        assert sqnr_db(a.cpu(), b.cpu()) > 30
        return
    if not isinstance(a, (dict, tuple)):
        assert a == b
        return
    one, other = (x.values() if isinstance(x, dict) else x for x in (a, b))
    for first, second in zip(one, other, strict=True):
        agree(first, second)


@pytest.mark.parametrize("made", ["cpu", "cuda"])
def test_captured_models(made):
    """One graph where it was made; elsewhere the modules run as written, with the same layers."""
    model = captured(made)
    expected = captured("cpu")(**EXAMPLE)
    for device in ("cuda", "cpu", "cuda"):
        model.to(device)
        agree(model(**on_device(EXAMPLE, device)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(dtype):
    model, x = quantized().cuda(), torch.randn(50, 64, device="cuda")
    with torch.autocast("cuda", dtype=dtype):
        assert model.up(x).dtype == dtype
        out = model(x)
    assert sqnr_db(out, model(x)) > 30


def test_half_models():
    for dtype in (torch.float16, torch.bfloat16):
        model = quantized().to("cuda", dtype)
        x = torch.randn(50, 64, device="cuda", dtype=dtype)
        assert model(x).dtype == dtype
        assert sqnr_db(model(x).float(), quantized().cuda()(x.float())) > 30


def test_transformer_encoder():
    """torch's own fused path, which would read float weights, is off on CUDA as well."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 96, batch_first=True, dropout=0.0)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    model = pyops.quantize(encoder, include=nn.Linear)
    x = torch.randn(2, 7, 64)
    with torch.no_grad():
        expected, out = model(x), copy.deepcopy(model).cuda()(x.cuda())
    assert sqnr_db(out.cpu(), expected) > 30
    assert any(row.kernel == "reference" for row in rows(model.cuda()).values())


def test_compile():
    model, x = quantized().cuda(), torch.randn(50, 64, device="cuda")
    with torch.no_grad():
        out = torch.compile(model, fullgraph=True)(x)
        assert sqnr_db(out, model(x)) > 90
