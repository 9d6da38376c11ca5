"""Captured models under deepcopy, pickle, files, threads, torch.compile and torch.export."""

from __future__ import annotations

import copy
import inspect
import io
import json
import pickle
import threading

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

import pyops
from pyops.testing.models.keyword_encoder import KeywordEncoder

GROUP = "int8_rows"
EXAMPLE = {"ids": torch.arange(6).reshape(2, 3), "mask": torch.ones(2, 3, dtype=torch.int64)}
CALLS = [
    {"ids": torch.arange(rows * 4).reshape(rows, 4), "mask": torch.ones(rows, 4, dtype=torch.int64)}
    for rows in (1, 2, 5)
]
for _call in CALLS:
    _call["mask"][0, 2:] = 0


def quantized(**options):
    options = {"example_inputs": EXAMPLE, "never_slower": False, **options}
    return pyops.quantize(KeywordEncoder(), include=nn.Linear, **options)


@pytest.fixture(scope="module")
def original():
    return quantized()


@pytest.fixture
def model(original):
    return copy.deepcopy(original)


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved,
    "twice": lambda model: saved(copy.deepcopy(pickle.loads(pickle.dumps(model)))),
    "in another module": lambda model: copy.deepcopy(nn.Sequential(model))[0],
}


def runs_as(tools, other, model):
    for call in CALLS:
        with torch.no_grad(), tools.count() as calls:
            out = other(**call)
        assert GROUP in calls
        with torch.no_grad():
            assert tools.same(out, model(**call))


@pytest.mark.parametrize("name", COPIES)
def test_copies(tools, model, name):
    other = COPIES[name](model)
    assert pyops.explain(other) == pyops.explain(model)
    runs_as(tools, other, model)


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_reads_its_own_tensors(tools, model, name):
    other = COPIES[name](model)
    expected = model(**CALLS[1])
    other.layers[0].norm.weight.data.mul_(3)
    other.shift.add_(1)
    assert tools.same(model(**CALLS[1]), expected)
    assert not tools.same(other(**CALLS[1]), expected)
    assert tools.same(other(**CALLS[1]), other.forward.as_written(**CALLS[1]), 2e-3)


def test_files(tools, model, tmp_path):
    pyops.save(model, tmp_path / "model")
    with torch.device("meta"):
        on_meta = KeywordEncoder()
    for skeleton in (KeywordEncoder(), on_meta):
        own = {name: set(vars(part)) for name, part in skeleton.named_modules()}
        other = pyops.load(tmp_path / "model", skeleton)
        assert {name: set(vars(part)) for name, part in skeleton.named_modules()} == own
        assert pyops.explain(other) == pyops.explain(model)
        runs_as(tools, other, model)
    plan = plan_of(tmp_path / "model")
    assert plan["captured"] == {
        "": {"dict": {name: {"tensor": [2, 3], "dtype": "int64"} for name in ("ids", "mask")}}
    }


def test_files_of_a_model_with_a_captured_part(tools, model, tmp_path):
    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, **options):
            return self.inner(**options)

    pyops.save(Outer(model), tmp_path / "model")
    runs_as(tools, pyops.load(tmp_path / "model", Outer(KeywordEncoder())), model)


class OtherForward(KeywordEncoder):
    def forward(self, ids, mask=None):
        return super().forward(ids, mask)["last"].sum().item()


OtherForward.__name__ = "KeywordEncoder"


def test_a_skeleton_that_is_not_one_graph(model, tmp_path):
    pyops.save(model, tmp_path / "model")
    with pytest.raises(ValueError, match=r"'' is one graph in the file, but not here: .*by module"):
        pyops.load(tmp_path / "model", OtherForward())


def plan_of(path):
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["plan"])


@pytest.mark.parametrize(
    ("captured", "message"),
    [
        (3, "'captured' is not an object"),
        ({"": 3}, "damaged plan"),
        ({"nowhere": {"dict": {}}}, "damaged plan: 'nowhere' is captured, but is no module"),
        ({"": {"list": []}}, r"damaged plan: '' is captured with \[\]"),
        ({"": {"dict": {"ids": {"tensor": [-2], "dtype": "int64"}}}}, "not an example"),
        ({"": {"dict": {"ids": {"tensor": [2, 3], "dtype": "nn"}}}}, "not an example"),
        ({"": {"dict": {"no such name": {"value": 1}}}}, "is one graph in the file"),
    ],
)
def test_damaged_files(model, tmp_path, captured, message):
    path = tmp_path / "model"
    pyops.save(model, path)
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        metadata = file.metadata()
    plan = json.loads(metadata["plan"])
    metadata["plan"] = json.dumps({**plan, "captured": captured})
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=message):
        pyops.load(path, KeywordEncoder())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_threads(tools, model, mode):
    expected = [model(**call) for call in CALLS]
    wrong = []

    def run():
        with mode():
            for i in range(60):
                if not tools.same(model(**CALLS[i % 3]), expected[i % 3]):
                    wrong.append(i)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_other_threads_run_their_models_meanwhile(tools, model):
    plain = KeywordEncoder().eval()
    with torch.no_grad():
        expected = plain(**CALLS[1]), model(**CALLS[1])
    stop, errors = threading.Event(), []

    def run():
        with torch.no_grad():
            while not stop.is_set():
                try:
                    for one, out in zip((plain, model), expected, strict=True):
                        if not tools.same(one(**CALLS[1]), out, 2e-3):
                            errors.append("another result")
                except Exception as error:
                    errors.append(repr(error))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(3):
            quantized()
    finally:
        stop.set()
        thread.join()
    assert not errors, f"{len(errors)} errors, first: {errors[0]}"


def test_compile_without_a_graph_break(tools, model):
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for call in CALLS:
            assert tools.same(compiled(**call), model(**call), 2e-3)
    torch.compiler.reset()


@pytest.mark.parametrize("strict", [False, True])
def test_export(tools, model, strict):
    with torch.no_grad():
        program = torch.export.export(model, (), CALLS[1], strict=strict)
        assert tools.same(program.module()(**CALLS[1]), model(**CALLS[1]), 2e-3)


def test_the_signature_is_that_of_the_forward_as_written(model):
    assert inspect.signature(model.forward) == inspect.signature(KeywordEncoder().forward)


def test_forcing_another_kernel_repacks(tools, model):
    expected = model(**CALLS[2])
    for name in pyops.isa.available():
        with pyops.isa.force(name):
            # Kernels of attention differ in their last bits, which may move a code.
            assert tools.same(model(**CALLS[2]), expected, 2e-3), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_fuses_the_same(tools, model, dtype):
    """Also norms behind residual sums: they cast back to the dtype of what they read."""
    half, plain = quantized(dtype=dtype), quantized(dtype=dtype, fuse=False)
    assert tools.notes(half) == tools.notes(model)
    with torch.no_grad():
        assert tools.same(half(**CALLS[2]), plain(**CALLS[2]), 5e-2)


def test_loading_a_state_dict(tools, model):
    other = KeywordEncoder()
    for parameter in other.parameters():
        parameter.data.mul_(1.5)
    other = pyops.quantize(other, include=nn.Linear, example_inputs=EXAMPLE, never_slower=False)
    model.load_state_dict(other.state_dict())
    runs_as(tools, model, other)


def test_in_place_conversion(tools, model):
    net = KeywordEncoder()
    options = {"example_inputs": EXAMPLE, "never_slower": False, "inplace": True}
    assert pyops.quantize(net, include=nn.Linear, **options) is net
    runs_as(tools, net, model)


def test_moving_to_meta(model):
    model = model.to("meta")
    out = model(**{name: value.to("meta") for name, value in CALLS[1].items()})
    assert (out["last"].shape, out["last"].device.type) == ((2, 4, 64), "meta")
