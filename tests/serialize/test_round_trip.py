"""save and load: bit-equal round trips, what is kept, and writing that cannot fail halfway."""

from __future__ import annotations

import copy
import json
import os

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

import pyops
from pyops.nn import Int8Linear

IDS = torch.arange(6)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("skeleton", [lambda m: m, lambda m: m.to("meta")], ids=["cpu", "meta"])
def test_round_trip_is_bit_equal(saved, path, skeleton, make):
    bare = skeleton(make(1))
    new = pyops.load(path, bare)
    assert same(new(IDS), saved(IDS))
    assert not any(module.training for module in new.modules())
    assert new.seen == 7
    assert torch.equal(new.table, saved.table)
    assert "table" not in new.state_dict()
    assert new.first.packed is new.tied.packed
    assert new.again is new.tied
    assert new.head.weight is new.embedding.weight
    assert new.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert new.lstm._flat_weights[0] is new.lstm.weight_ih_l0
    assert list(new.state_dict()) == list(saved.state_dict())
    assert pyops.explain(new) == pyops.explain(saved)


def test_every_isa_reads_what_every_isa_wrote(path, make):
    model = pyops.quantize(make())
    expected = model(IDS)
    for writer in pyops.isa.available():
        with pyops.isa.force(writer):
            pyops.save(model, path)
        for reader in pyops.isa.available():
            with pyops.isa.force(reader):
                assert same(pyops.load(path, make().to("meta"))(IDS), expected), (writer, reader)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_are_preserved(path, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 3)).to(dtype)
    new = pyops.quantize(model)
    pyops.save(new, path)
    loaded = pyops.load(path, copy.deepcopy(model).float())
    assert loaded[0].weight.dtype == loaded[1].weight.dtype == loaded[2].bias.dtype == dtype
    x = torch.randn(2, 64).to(dtype)
    assert torch.equal(loaded(x), new(x))
    assert loaded(x).dtype == dtype


def test_the_model_itself_may_be_the_layer(path):
    new = pyops.quantize(nn.Linear(64, 64))
    pyops.save(new, path)
    loaded = pyops.load(path, nn.Linear(64, 64))
    x = torch.randn(2, 64)
    assert torch.equal(loaded(x), new(x))


def test_a_model_that_stays_float_keeps_its_reasons(path):
    model = pyops.quantize(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)), exclude="0")
    model[1] = nn.Linear(64, 64)
    pyops.save(model, path)
    loaded = pyops.load(path, nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)))
    assert pyops.explain(loaded).rows[0].reason == "excluded (exclude=)"


def test_the_file_is_plain_safetensors(saved, path):
    with safe_open(path, framework="pt") as file:
        keys = set(file.keys())
        metadata = file.metadata()
        assert file.get_tensor("first.weight").dtype == torch.int8
        assert file.get_tensor("first.weight_scale").dtype == torch.float32
        assert torch.equal(file.get_tensor("first.weight"), saved.state_dict()["first.weight"])
    assert "tied.weight" not in keys  # tied: stored once
    assert "head.weight" not in keys
    assert {"tied.bias", "table", "seen"} <= keys
    assert (metadata["format"], metadata["version"]) == ("pyops", "1")
    plan = json.loads(metadata["plan"])
    assert plan["layers"]["tied"]["cls"] == "Int8Linear"
    assert plan["layers"]["tied"]["paths"] == ["tied", "again"]
    assert plan["left"]["small"]["reason"].startswith("too small")
    assert plan["aliases"]["head.weight"] == "embedding.weight"
    assert b"pickle" not in path.read_bytes()


def test_load_never_times_or_quantizes(saved, path, monkeypatch, make):
    from pyops.nn import packed_weight
    from pyops.quantize import measure

    def refuse(*args, **kwargs):
        raise AssertionError("called while loading")

    monkeypatch.setattr(measure, "_interleaved", refuse)
    monkeypatch.setattr(packed_weight, "quantize_weight", refuse)
    pyops.load(path, make().to("meta"))


def test_a_failed_write_leaves_the_old_file(saved, path, monkeypatch, make):
    before = path.read_bytes()
    real = safetensors.torch.save_file

    def half(tensors, name, metadata):
        real(tensors, name, metadata=metadata)
        with open(name, "r+b") as file:
            file.truncate(50)
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", half)
    with pytest.raises(OSError, match="disk full"):
        pyops.save(pyops.quantize(make(3)), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_new_file_has_the_mode_of_any_new_file(saved, path):
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_saving_over_an_old_file(saved, path, make):
    other = pyops.quantize(make(3))
    pyops.save(other, str(path))
    assert same(pyops.load(path, make())(IDS), other(IDS))
    assert os.listdir(path.parent) == [path.name]


def test_saving_over_the_file_that_the_model_was_loaded_from(saved, path, make):
    loaded = pyops.load(path, make().to("meta"))
    expected = loaded(IDS)
    pyops.save(loaded, path)
    assert same(loaded(IDS), expected)
    assert same(pyops.load(path, make().to("meta"))(IDS), expected)


def test_parameters_over_one_storage_are_saved_apart(path):
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(8, 8, bias=False), nn.LayerNorm(8))
    model[2].weight = nn.Parameter(model[1].weight.detach()[0])
    new = pyops.quantize(model)
    pyops.save(new, path)
    loaded = pyops.load(path, copy.deepcopy(model))
    assert torch.equal(loaded[2].weight, new[2].weight)
    assert torch.equal(loaded[1].weight, new[1].weight)


@pytest.mark.filterwarnings("ignore:Complex modules")
def test_what_cannot_be_saved(path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    with pytest.raises(TypeError, match=r"save takes an nn\.Module, but got list"):
        pyops.save([], path)
    with pytest.raises(ValueError, match=r"1 \(Extra\) has extra state"):
        pyops.save(nn.Sequential(nn.ReLU(), Extra(2, 2)), path)
    with pytest.raises(ValueError, match=r"weight has no values \(meta device"):
        pyops.save(nn.Linear(2, 2, device="meta"), path)
    with pytest.raises(ValueError, match=r"weight is torch\.complex128"):
        pyops.save(nn.Embedding(2, 2).to(torch.complex128), path)

    class Mine(Int8Linear):
        pass

    with pytest.raises(ValueError, match=r"0 is a Mine, which is not registered"):
        pyops.save(nn.Sequential(Mine.from_float(nn.Linear(2, 2))), path)
    assert not path.exists()
    assert os.listdir(path.parent) == []


def test_an_int8_layer_built_by_hand(path):
    built = nn.Sequential(Int8Linear.from_float(nn.Linear(8, 4)))
    pyops.save(built, path)
    loaded = pyops.load(path, nn.Sequential(nn.Linear(8, 4)))
    x = torch.randn(3, 8)
    assert torch.equal(loaded(x), built(x))
