"""load refuses every wrong skeleton and file, names the first difference, changes nothing."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

import pyops


def test_the_skeleton_is_not_changed(saved, path, make, snapshot):
    skeleton = make(1).train()
    before = snapshot(skeleton)
    new = pyops.load(path, skeleton)
    new.half()
    assert snapshot(skeleton) == before


def change(skeleton, name, module):
    parent, _, leaf = name.rpartition(".")
    setattr(skeleton.get_submodule(parent), leaf, module)
    return skeleton


class Mine(nn.Linear):
    pass


WRONG_SKELETONS = {
    "class": (
        lambda s: change(s, "norm", nn.LayerNorm(64)),
        "module 'norm' is a LayerNorm in the skeleton but a BatchNorm1d in the file",
    ),
    "layer_class": (
        lambda s: change(s, "first", Mine(64, 64)),
        "module 'first' is a Mine in the skeleton but a Linear in the file",
    ),
    "missing_module": (
        lambda s: (delattr(s, "small"), s)[1],
        "the skeleton has no module 'small' (Linear in the file)",
    ),
    "extra_module": (
        lambda s: change(s, "more", nn.ReLU()),
        "the file has no module 'more' (ReLU in the skeleton)",
    ),
    "shape": (
        lambda s: change(s, "small", nn.Linear(64, 4)),
        "'small.weight' is [3, 64] in the file but [4, 64] in the skeleton",
    ),
    "int8_shape": (
        lambda s: change(change(s, "tied", nn.Linear(64, 49)), "again", s.tied),
        "'tied.weight' is [64, 64] in the file but [49, 64] in the skeleton",
    ),
    "bias_missing": (
        lambda s: change(s, "first", nn.Linear(64, 64, bias=False)),
        "the file holds 'first.bias', which the skeleton lacks",
    ),
    "bias_extra": (
        lambda s: change(s, "head", nn.Linear(64, 50)),
        "the file has no tensor 'head.bias', which the skeleton has",
    ),
    "buffer": (
        lambda s: (s.register_buffer("extra", torch.zeros(2)), s)[1],
        "the file has no tensor 'extra', which the skeleton has",
    ),
    "not_shared": (
        lambda s: change(s, "again", nn.Linear(64, 64)),
        "the file has no module 'again' (Linear in the skeleton)",
    ),
    "converted": (
        lambda s: pyops.quantize(s),
        "the skeleton must be the float model, but first is converted",
    ),
}


@pytest.mark.parametrize("case", WRONG_SKELETONS)
def test_a_skeleton_that_differs(saved, path, case, make, snapshot):
    build, message = WRONG_SKELETONS[case]
    skeleton = build(make(1))
    before = snapshot(skeleton)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        pyops.load(path, skeleton)
    assert str(error.value) == f"{path}: {message}"
    assert snapshot(skeleton) == before


def test_a_plain_tensor_on_the_meta_device_is_refused(path):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)
            self.table = torch.zeros(3)

    pyops.save(pyops.quantize(Plain()), path)
    pyops.load(path, Plain())
    with torch.device("meta"):
        skeleton = Plain()
    with pytest.raises(ValueError, match="table is a plain tensor on the meta device"):
        pyops.load(path, skeleton)


def test_a_skeleton_that_is_no_module(saved, path):
    with pytest.raises(TypeError, match=r"load takes an nn\.Module as skeleton, but got dict"):
        pyops.load(path, {})


# --- files that are wrong --------------------------------------------------------------------


def rewrite(path: Path, tensors=None, metadata=None, plan=None):
    """Writes the file again with changes; values are functions of what was there."""
    with safe_open(path, framework="pt") as file:
        old = {key: file.get_tensor(key) for key in file.keys()}
        meta = file.metadata()
    if plan is not None:
        raw = json.loads(meta["plan"])
        raw = plan(raw) or raw
        meta["plan"] = raw if isinstance(raw, str) else json.dumps(raw)
    if tensors is not None:
        old = tensors(old) or old
    if metadata is not None:
        meta = metadata(meta)
    safetensors.torch.save_file(old, path, metadata=meta)


def layer(raw):
    return raw["layers"]["first"]


WRONG_FILES = {
    "no_metadata": ({"metadata": lambda m: None}, "not a file that pyops.save wrote"),
    "other_format": ({"metadata": lambda m: {"format": "pt"}}, "not a file that pyops.save wrote"),
    "version": ({"metadata": lambda m: {**m, "version": "2"}}, "format version is '2', but this"),
    "no_version": (
        {"metadata": lambda m: {"format": "pyops"}},
        "format version is None, but this pyops reads '1'",
    ),
    "no_plan": (
        {"metadata": lambda m: {"format": "pyops", "version": "1"}},
        "damaged plan: KeyError: 'plan'",
    ),
    "not_json": ({"plan": lambda p: "{"}, "damaged plan: JSONDecodeError"),
    "deep_json": ({"plan": lambda p: "[" * 100_000}, "damaged plan: RecursionError"),
    "a_list": ({"plan": lambda p: [1]}, "damaged plan: ValueError: 'classes' is not an object"),
    "no_layers": ({"plan": lambda p: p.pop("layers") and p}, "'layers' is not an object"),
    "unknown_class": (
        {"plan": lambda p: layer(p).update(cls="os.system")},
        "unknown layer class 'os.system'",
    ),
    "class_is_a_list": ({"plan": lambda p: layer(p).update(cls=[])}, r"\[\] is not a string"),
    "unknown_field": ({"plan": lambda p: layer(p).update(evil=1)}, "damaged plan: TypeError"),
    "unknown_dtype": ({"plan": lambda p: layer(p).update(dtype="load")}, "unknown dtype 'load'"),
    "bad_flag": ({"plan": lambda p: layer(p).update(transposed=3)}, "damaged plan: ValueError"),
    "no_paths": ({"plan": lambda p: layer(p).update(paths=[])}, "damaged plan: ValueError"),
    "foreign_paths": (
        {"plan": lambda p: layer(p).update(paths=["first", "norm"])},
        "'first' and 'norm' are one layer only in the file",
    ),
    "dunder_path": (
        {"plan": lambda p: layer(p).update(paths=["first", "__class__"])},
        "'first' and '__class__' are one layer only in the file",
    ),
    "layer_outside": (
        {"plan": lambda p: p["layers"].update({"nowhere": layer(p)})},
        "int8 layer 'nowhere' is not in the skeleton",
    ),
    "wrong_layer": (
        {"plan": lambda p: p["layers"].update(norm={**layer(p), "paths": ["norm"]})},
        "Int8Linear does not replace 'norm', a BatchNorm1d",
    ),
    "bad_record": (
        {"plan": lambda p: p["left"]["small"].update(bytes_before="x")},
        "bytes_before is 'x'",
    ),
    "left_outside": (
        {"plan": lambda p: p["left"].update(nowhere=p["left"]["small"])},
        "a reason for 'nowhere', which is not in the skeleton",
    ),
    "alias_to_nothing": (
        {"plan": lambda p: p["aliases"].update({"head.weight": "none"})},
        "damaged plan: 'head.weight' stands for 'none'",
    ),
    "alias_loop": (
        {"plan": lambda p: p["aliases"].update({"head.weight": "head.weight"})},
        "damaged plan: 'head.weight' stands for 'head.weight'",
    ),
    "alias_of_int8": (
        {"plan": lambda p: p["aliases"].update({"lstm.bias_hh_l0": "first.weight"})},
        "damaged plan: 'lstm.bias_hh_l0' stands for 'first.weight'",
    ),
    "order": (
        {"plan": lambda p: p["orders"].update({"conv.weight": [0, 0, 0, 0]})},
        r"damaged plan: order \[0, 0, 0, 0\] of 'conv.weight'",
    ),
    "float_over_int8": (
        {"plan": lambda p: p["layers"].pop("first") and None},
        "is a Linear in the skeleton|tied.weight|weight_scale",
    ),
    "key_missing": (
        {"tensors": lambda t: t.pop("norm.bias") is None},
        "the file has no tensor 'norm.bias', which the skeleton has",
    ),
    "key_outside": (
        {"tensors": lambda t: t.update({"../../evil": torch.zeros(1)})},
        "the file holds '../../evil', which the skeleton lacks",
    ),
    "int8_as_float": (
        {"tensors": lambda t: t.update({"first.weight": torch.zeros(64, 64)})},
        "'first': PackedWeight: weight is torch.float32",
    ),
    "minus_128": (
        {"tensors": lambda t: t["first.weight"].fill_(-128) is None},
        "'first': PackedWeight: weight holds -128",
    ),
    "nan_scale": (
        {"tensors": lambda t: t["first.weight_scale"].fill_(float("nan")) is None},
        "'first': PackedWeight: scale holds a value that is not finite and positive",
    ),
    "scale_shape": (
        {"tensors": lambda t: t.update({"first.weight_scale": torch.ones(2)})},
        r"'first.weight_scale' is \[2\] in the file but \[64\] in the skeleton",
    ),
    "float_as_int": (
        {"tensors": lambda t: t.update({"norm.weight": torch.ones(64, dtype=torch.int64)})},
        "'norm.weight' is torch.int64 in the file but torch.float32 in the skeleton",
    ),
    "bias_as_int": (
        {"tensors": lambda t: t.update({"first.bias": torch.ones(64, dtype=torch.int64)})},
        "'first.bias' is torch.int64 in the file but torch.float32 in the skeleton",
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_or_hostile_file(saved, path, case, make, snapshot):
    changes, message = WRONG_FILES[case]
    rewrite(path, **changes)
    skeleton = make(1)
    before = snapshot(skeleton)
    with pytest.raises(ValueError, match=message):
        pyops.load(path, skeleton)
    assert snapshot(skeleton) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:4],
        lambda data: data[:100],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[: len(data) // 2],
        lambda data: struct.pack("<Q", 1 << 60) + data[8:],
        lambda data: struct.pack("<Q", len(data)) + data[8:],
        lambda data: data[:8] + b"\xff" * 50 + data[58:],
        lambda data: b"PK\x03\x04" + data,
    ],
    ids=["empty", "4", "100", "last", "extra", "half", "huge", "long", "text", "zip"],
)
def test_a_damaged_file(saved, path, damage, make, snapshot):
    path.write_bytes(damage(path.read_bytes()))
    skeleton = make(1)
    before = snapshot(skeleton)
    with pytest.raises(ValueError, match="not a safetensors file, or a damaged one"):
        pyops.load(path, skeleton)
    assert snapshot(skeleton) == before


def test_files_that_cannot_be_opened(tmp_path, make):
    with pytest.raises(FileNotFoundError):
        pyops.load(tmp_path / "none", make())
    with pytest.raises(IsADirectoryError):
        pyops.load(tmp_path, make())
    with pytest.raises(FileNotFoundError):
        pyops.save(make(), tmp_path / "none" / "model.safetensors")
