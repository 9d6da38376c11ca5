"""explain: rows, the table, JSON; reasons travel with the model."""

from __future__ import annotations

import copy
import io
import json
import pickle
from dataclasses import fields

import pytest
import torch
from torch import nn

import pyops
from pyops import backends
from pyops.explain import Row
from pyops.nn import Int8Linear

FIELDS = [
    "name",
    "before",
    "after",
    "kernel",
    "isa",
    "reason",
    "bytes_before",
    "bytes_after",
    "sqnr_db",
    "ms_before",
    "ms_after",
]


def make():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 96),
        nn.Sequential(nn.ReLU(), nn.Linear(96, 96, bias=False)),
        nn.MultiheadAttention(96, 4),
        nn.Linear(96, 5),
    )
    return model


def test_rows():
    new = pyops.quantize(make())
    report = pyops.explain(new)
    assert [row.name for row in report.rows] == ["0", "1.1", "2", "2.out_proj", "3"]
    first, second, attention, projection, last = report.rows
    assert (first.before, first.after) == ("Linear", "Int8Linear")
    assert second.reason == "replaced"
    assert first.reason.startswith("replaced; not fused: Sequential.forward cannot be traced: ")
    assert "MultiheadAttention" in first.reason
    assert first.bytes_before == 4 * (64 * 96 + 96)
    assert first.bytes_after == new[0].packed.nbytes + 4 * 96
    assert second.bytes_after == new[1][1].packed.nbytes
    assert (attention.before, attention.after) == ("MultiheadAttention", "MultiheadAttention")
    assert attention.kernel is attention.isa is None
    assert "reads its weights" in projection.reason
    assert last.bytes_before == last.bytes_after == 4 * (96 * 5 + 5)
    assert last.reason.startswith("too small")
    assert all(row.sqnr_db is row.ms_before is row.ms_after is None for row in report.rows)


def test_kernel_and_isa_are_those_that_run_now():
    new = pyops.quantize(make())
    if not backends.compiled():
        assert pyops.explain(new).rows[0].kernel == "reference"
    for name in pyops.isa.available():
        with pyops.isa.force(name):
            row = pyops.explain(new).rows[0]
            packed = next(m.packed for m in new.modules() if isinstance(m, Int8Linear))
            assert row.kernel == backends.kernel("int8_gemm", packed.layout)
            levels = pyops.isa.available()
            assert levels.index(row.isa) <= levels.index(name)


def test_a_float_model_is_explained_too():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8).double(), nn.MultiheadAttention(8, 2))
    rows = {row.name: row for row in pyops.explain(model).rows}
    assert rows["0"].reason == "not converted: apply pyops.quantize"
    assert rows["1"].reason.startswith("weight is float64")
    assert "reads its weights" in rows["2.out_proj"].reason
    assert pyops.explain(nn.ReLU()).rows == ()
    assert "0 of 0 layers in int8" in str(pyops.explain(nn.ReLU()))


def test_a_layer_that_was_built_by_hand():
    layer = pyops.nn.Int8Linear.from_float(nn.Linear(8, 4))
    (row,) = pyops.explain(layer).rows
    assert row.reason == "built as an int8 layer"
    assert row.bytes_before == 4 * (8 * 4 + 4)


def test_reasons_travel(tmp_path):
    model = make()
    new = pyops.quantize(model, exclude="0", example_inputs=None)
    report = pyops.explain(new)
    pyops.save(new, tmp_path / "m.safetensors")
    buffer = io.BytesIO()
    torch.save(new, buffer)
    buffer.seek(0)
    for other in (
        copy.deepcopy(new),
        pickle.loads(pickle.dumps(new)),
        torch.load(buffer, weights_only=False),
        pyops.load(tmp_path / "m.safetensors", model),
    ):
        assert pyops.explain(other) == report
    assert report.rows[0].reason == "excluded (exclude=)"
    part = pyops.explain(new[1]).rows
    assert [(row.name, row.reason) for row in part] == [("1", "replaced")]


def test_measured_numbers_travel(tmp_path):
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    new = pyops.quantize(model, example_inputs=torch.randn(3, 64))
    report = pyops.explain(new)
    assert all(row.sqnr_db > 30 and row.ms_before > 0 for row in report.rows)
    pyops.save(new, tmp_path / "m.safetensors")
    assert pyops.explain(pyops.load(tmp_path / "m.safetensors", model)) == report


def test_json():
    assert [field.name for field in fields(Row)] == FIELDS
    report = pyops.explain(pyops.quantize(make()))
    data = json.loads(report.to_json())
    assert [list(row) for row in data["rows"]] == [FIELDS] * 5
    assert data["rows"][0]["kernel"] == report.rows[0].kernel
    exact = pyops.quantize(nn.Linear(64, 64), example_inputs=torch.zeros(1, 64), never_slower=False)
    json.loads(pyops.explain(exact).to_json())  # an exact layer: no Infinity in the file


def test_the_table():
    report = pyops.explain(pyops.quantize(make()))
    text = str(report)
    for row in report.rows:
        assert row.name in text
    assert "2 of 5 layers in int8" in text
    assert "ms before" not in text  # nothing was timed
    assert "\x1b" not in text
    assert max(len(line) for line in report.table(width=100).splitlines()) <= 100


def test_errors():
    with pytest.raises(TypeError, match=r"explain takes an nn\.Module, but got str"):
        pyops.explain("model")
