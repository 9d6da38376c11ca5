"""nn.TransformerEncoderLayer and nn.TransformerEncoder really call our layers."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import pyops
from pyops.nn import Int8Linear, PackedWeight


def make_layer(**kwargs):
    torch.manual_seed(0)
    options = {"batch_first": True, "dropout": 0.1, **kwargs}
    return nn.TransformerEncoderLayer(64, 4, 96, **options)


@pytest.fixture
def calls(monkeypatch):
    """Grows by one for each int8 weight that is used; fused layers do not call one another."""
    counted = []
    get, output_dtype = PackedWeight.get, Int8Linear.output_dtype

    def counting(self):
        counted.append(self)
        return get(self)

    def strict(self, x):
        assert not x.is_nested
        return output_dtype(self, x)

    monkeypatch.setattr(PackedWeight, "get", counting)
    monkeypatch.setattr(Int8Linear, "output_dtype", strict)
    return counted


MODES = [torch.inference_mode, torch.no_grad, torch.enable_grad]


@pytest.mark.parametrize("mode", MODES, ids=["inference", "no_grad", "grad"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_bare_layer_runs_ours(calls, mode, norm_first, activation):
    layer = make_layer(norm_first=norm_first, activation=activation)
    x = torch.randn(2, 7, 64)
    new = pyops.quantize(layer)
    with mode():
        out = new(x)
    assert len(calls) == 2
    expected = layer.eval()(x)
    assert (out - expected).abs().max() < 0.05
    assert layer.activation_relu_or_gelu != 0  # the input is untouched


@pytest.mark.parametrize("mode", MODES, ids=["inference", "no_grad", "grad"])
@pytest.mark.parametrize("masked", ["none", "padding", "padding_gap", "src"])
@pytest.mark.parametrize("nested", [True, False])
def test_an_encoder_runs_ours(calls, mode, masked, nested):
    encoder = nn.TransformerEncoder(make_layer(), 3, enable_nested_tensor=nested)
    x = torch.randn(2, 7, 64)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, (slice(4, None) if masked == "padding" else slice(2, 4))] = True
    arguments = {
        "none": {},
        "padding": {"src_key_padding_mask": padding},
        "padding_gap": {"src_key_padding_mask": padding},
        "src": {"mask": nn.Transformer.generate_square_subsequent_mask(7)},
    }[masked]
    new = pyops.quantize(encoder)
    with mode():
        out = new(x, **arguments)
    assert len(calls) == 6
    encoder.eval()
    with torch.enable_grad():  # the float encoder's ordinary path
        expected = encoder(x, **arguments)
    valid = ~padding if masked.startswith("padding") else torch.ones(2, 7, dtype=torch.bool)
    assert (out - expected)[valid].abs().max() < 0.1
    assert encoder.use_nested_tensor == nested


def test_copies_and_pickles_still_run_ours(calls):
    encoder = nn.TransformerEncoder(make_layer(), 2)
    new = pyops.quantize(encoder)
    x = torch.randn(2, 7, 64)
    with torch.inference_mode():
        expected = new(x)
        for other in (copy.deepcopy(new), pickle.loads(pickle.dumps(new))):
            calls.clear()
            assert torch.equal(other(x), expected)
            assert len(calls) == 4


def test_loaded_models_still_run_ours(calls, tmp_path):
    encoder = nn.TransformerEncoder(make_layer(), 2)
    new = pyops.quantize(encoder)
    pyops.save(new, tmp_path / "m.safetensors")
    other = pyops.load(tmp_path / "m.safetensors", encoder)
    with torch.inference_mode():
        x = torch.randn(2, 7, 64)
        expected = new(x)
        calls.clear()
        assert torch.equal(other(x), expected)
    assert len(calls) == 4


def test_inplace_runs_ours(calls):
    encoder = nn.TransformerEncoder(make_layer(), 2)
    pyops.quantize(encoder, inplace=True)
    with torch.inference_mode():
        encoder(torch.randn(2, 7, 64))
    assert len(calls) == 4


def test_a_layer_that_stays_float_keeps_its_fast_path():
    model = nn.Sequential(make_layer(), make_layer())
    new = pyops.quantize(model, exclude="0")
    assert new[0].activation_relu_or_gelu == 1
    assert new[1].activation_relu_or_gelu == 0


def test_example_inputs_reach_the_layers_and_fast_path_setting_survives():
    encoder = nn.TransformerEncoder(make_layer(), 2)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 4:] = True
    example = {"src": torch.randn(2, 7, 64), "src_key_padding_mask": padding}
    new = pyops.quantize(encoder, example_inputs=example, never_slower=False)
    rows = [row for row in pyops.explain(new).rows if row.kernel]
    assert len(rows) == 4
    assert all(row.sqnr_db > 25 for row in rows)
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_whole_transformer():
    torch.manual_seed(0)
    model = nn.Transformer(64, 4, 2, 2, 96, batch_first=True).eval()
    new = pyops.quantize(model)
    src, tgt = torch.randn(2, 5, 64), torch.randn(2, 6, 64)
    with torch.inference_mode():
        assert (new(src, tgt) - model(src, tgt)).abs().max() < 0.2
    assert sum(row.kernel is not None for row in pyops.explain(new).rows) == 8
