"""Fused models under deepcopy, pickle, threads, torch.compile and torch.export."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyops


class Net(nn.Module):
    """Everything that a graph may refer to, and attributes of every simple type."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(64, 96), nn.Linear(96, 64)
        self.q, self.k = nn.Linear(64, 64), nn.Linear(64, 64)
        self.norm, self.drop = nn.LayerNorm(64), nn.Dropout(0.5)
        self.gate = nn.Parameter(torch.ones(64))
        self.register_buffer("shift", torch.zeros(64))
        self.size, self.eps, self.name, self.on = 76800, 1e-5, "a name", True

    def forward(self, x, mask=None):
        q, k = self.q(x), self.k(x)
        scores = torch.softmax(q @ k.transpose(-1, -2) / self.size**0.5, dim=-1)
        if mask is not None:
            scores = scores.masked_fill(mask, 0.0).clamp(max=float("inf"))
        y = torch.cat([scores @ x, x], -1)[..., :64].to(torch.float32)
        y = F.layer_norm(y, (64,), eps=self.eps) * self.gate + self.shift
        return x + self.drop(self.down(F.relu(self.up(self.norm(y)))))


NOTES = {
    "up": ["LayerNorm + quantize", "relu", "one call with down"],
    "down": ["residual", "one call with up"],
    "q": ["one call with k"],
    "k": ["one call with q"],
}
MASK = torch.arange(36).reshape(6, 6) % 5 == 0
FUSED_CALLS = ["int8_rows"] * 2


@pytest.fixture
def model() -> nn.Module:
    return pyops.quantize(Net(), include=nn.Linear)


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def doubled(value):
    return value * 2


class Helped(Net):
    """Calls a function beside it, which a pickle names and does not hold."""

    def forward(self, x):
        return self.down(F.relu(self.up(doubled(x))))


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "pickle 2": lambda model: pickle.loads(pickle.dumps(model, protocol=2)),
    "torch.save": saved,
    "twice": lambda model: saved(copy.deepcopy(pickle.loads(pickle.dumps(model)))),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_stay_fused(tools, model, x, name):
    other = COPIES[name](model)
    assert tools.notes(other) == tools.notes(model) == NOTES
    assert pyops.explain(other) == pyops.explain(model)
    for args in ((x,), (x, MASK)):
        with tools.count() as calls:
            out = other(*args)
        assert calls == FUSED_CALLS
        assert torch.equal(out, model(*args))


@pytest.mark.parametrize("name", COPIES)
def test_copies_that_call_functions_stay_fused(tools, x, name):
    other = COPIES[name](pyops.quantize(Helped(), include=nn.Linear))
    with tools.count() as calls:
        other(x)
    assert calls == ["int8_rows"]


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_its_own_owner(model, x, name):
    other, expected = COPIES[name](model), model(x)
    assert pyops.graph.graph_of(other).owner is other
    other.on, other.down = False, nn.Linear(96, 64).requires_grad_(False)
    other.gate.data.fill_(0.5)
    assert not torch.equal(other(x), expected)
    assert torch.equal(model(x), expected)
    model.shift.fill_(1.0)
    assert torch.equal(other(x), type(other).forward(other, x))


def test_copies_of_a_part(tools, model, x):
    whole = nn.Sequential(model, nn.Identity())
    part = copy.deepcopy(whole)[0]
    assert tools.notes(part) == NOTES
    assert torch.equal(part(x), model(x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_threads(model, x, mode):
    expected = {rows: model(x[:rows]) for rows in (1, 3, 6)}
    wrong = []

    def run():
        with mode():
            for i in range(60):
                rows = (1, 3, 6)[i % 3]
                if not torch.equal(model(x[:rows]), expected[rows]):
                    wrong.append(rows)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_other_threads_run_their_models_while_one_is_fused(model, x):
    """Tracing must not show in other threads: fx patches nn.Module for the whole process."""
    plain = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
    expected = plain(x), model(x)
    stop, errors = threading.Event(), []

    def run():
        with torch.no_grad():
            while not stop.is_set():
                try:
                    for one, out in zip((plain, model), expected, strict=True):
                        if not torch.equal(one(x), out):
                            errors.append("another result")
                except Exception as error:
                    errors.append(repr(error))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(20):
            pyops.quantize(Net(), include=nn.Linear)
    finally:
        stop.set()
        thread.join()
    assert not errors, f"{len(errors)} errors, first: {errors[0]}"


def test_compile_without_a_graph_break(tools, model, x):
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for args in ((x,), (x, MASK), (x[:3],)):
            assert tools.same(compiled(*args), model(*args), 1e-6)
    model.on = False
    with torch.no_grad():
        assert tools.same(compiled(x), model(x), 1e-6)
    torch.compiler.reset()


@pytest.mark.slow
def test_compile_with_inductor(tools, model, x):
    torch.compiler.reset()
    with torch.inference_mode():
        assert tools.same(torch.compile(model, fullgraph=True)(x), model(x), 1e-4)
    torch.compiler.reset()


@pytest.mark.parametrize("strict", [False, True])
def test_export(tools, model, x, strict):
    with torch.no_grad():
        program = torch.export.export(model, (x,), strict=strict)
        assert torch.equal(program.module()(x), model(x))
    assert str(program.graph).count("torch.ops.pyops.int8_rows.default") == 2


def test_export_takes_arguments_by_name(model, x):
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = {"x": {0: batch}, "mask": None}
    with torch.no_grad():
        program = torch.export.export(model, (x,), {"mask": None}, dynamic_shapes=shapes)
        assert torch.equal(program.module()(x[:3], mask=None), model(x[:3]))


def test_the_signature_is_that_of_the_forward_as_written(model):
    assert list(inspect.signature(model.forward).parameters) == ["x", "mask"]


def test_functional_call(model, x):
    values = {"gate": torch.full((64,), 2.0)}
    out = torch.func.functional_call(model, values, (x,))
    model.gate.data.fill_(2.0)
    assert torch.equal(out, model(x))


def test_moving_to_meta_keeps_shapes(model, x):
    out = copy.deepcopy(model).to("meta")(x.to("meta"))
    assert (out.shape, out.device.type, isinstance(out, Tensor)) == (x.shape, "meta", True)


def test_forcing_another_kernel_repacks(model, x):
    expected = model(x)
    for name in pyops.isa.available():
        with pyops.isa.force(name):
            assert torch.equal(model(x), expected), name
    assert torch.equal(model(x), expected)


def test_loading_a_state_dict_changes_what_a_graph_computes(model, x):
    other = Net()
    for parameter in other.parameters():
        parameter.data.mul_(1.5)
    other = pyops.quantize(other, include=nn.Linear)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model(x), other(x))


def test_in_place_conversion_is_fused_too(tools, model, x):
    net = Net()
    assert pyops.quantize(net, include=nn.Linear, inplace=True) is net
    assert tools.notes(net) == NOTES
    assert torch.equal(net(x), model(x))


def test_measured_conversion_is_fused_too(tools, x):
    net = pyops.quantize(Net(), include=nn.Linear, example_inputs=x, never_slower=False)
    assert tools.notes(net) == NOTES


def test_the_float_model_keeps_its_forward(x):
    net = Net().eval()
    before = set(net.__dict__)
    expected = net(x)
    pyops.quantize(net, include=nn.Linear)
    assert set(net.__dict__) == before
    assert torch.equal(net(x), expected)
