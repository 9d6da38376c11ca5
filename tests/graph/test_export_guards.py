"""What is changed after a model was captured: the forward as written runs, or the graph sees it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyops
from pyops.testing.models.keyword_encoder import WORDS, Block, KeywordEncoder

IDS = torch.arange(12).reshape(3, 4)
CALL = {"ids": IDS, "mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])}
CLOSE = 2e-3
GROUP = "int8_rows"  # in a graph of the whole model alone


@pytest.fixture(scope="module")
def originals():
    return [
        pyops.quantize(
            KeywordEncoder(), include=nn.Linear, example_inputs=CALL, never_slower=False, fuse=fuse
        )
        for fuse in (True, False)
    ]


@pytest.fixture
def pair(originals):
    return [copy.deepcopy(model) for model in originals]


def ran(tools, model):
    """(result, whether the graph made it)"""
    with torch.no_grad(), tools.count() as calls:
        out = tools.outcome(model, **CALL)
    return out, GROUP in calls


def replace_a_layer(model):
    torch.manual_seed(3)
    model.layers[0].up = nn.Linear(64, 96).eval().requires_grad_(False)


def replace_a_part(model):
    model.layers[1] = copy.deepcopy(model.layers[0])


def swap_parts(model):
    model.layers[0].query, model.layers[0].key = model.layers[0].key, model.layers[0].query


def drop_a_part(model):
    del model.layers[1]


def hook(model):
    model.layers[0].norm.register_forward_hook(lambda m, args, out: out * 2)


def hook_on_a_layer(model):
    model.layers[0].up.register_forward_pre_hook(lambda m, args: (args[0] * 2,))


def attribute(model):
    model.layers[1].factor = 0.5


def attribute_of_a_norm(model):
    model.layers[1].norm.eps = 0.5


def config(model):
    model.config.activation = "relu"


def list_in_the_config(model):
    model.config.sizes.append(3)


def another_config(model):
    model.config = copy.copy(model.config)
    model.config.sizes = [7]


def forward_of_a_part(model):
    part = model.layers[0].last
    part.forward = lambda x: x * 3


def dtype_of_a_norm(model):
    model.layers[0].last.weight.data = model.layers[0].last.weight.data.to(torch.bfloat16)


def more_rows(model):
    model.words.weight.data = torch.cat([model.words.weight.data] * 2)


def a_dropout_in_train_mode(model):
    model.layers[0].dropout.train()


REFUSED = [
    *(replace_a_layer, replace_a_part, swap_parts, drop_a_part, hook, hook_on_a_layer, attribute),
    *(attribute_of_a_norm, config, list_in_the_config, another_config, forward_of_a_part),
    *(dtype_of_a_norm, more_rows, a_dropout_in_train_mode),
]
COPIES = {
    "itself": lambda model: model,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("change", REFUSED)
@pytest.mark.parametrize("before", [True, False])
def test_after_a_change_the_forward_as_written_runs(tools, pair, change, before):
    """Also if the change is the first thing that happens, before any call."""
    fused, unfused = pair
    if before:
        assert ran(tools, fused)[1]
    for model in pair:
        change(model)
    out, graph = ran(tools, fused)
    assert not graph
    assert tools.same(out, ran(tools, unfused)[0], CLOSE)


@pytest.mark.parametrize("change", [attribute, config, replace_a_part, dtype_of_a_norm])
@pytest.mark.parametrize("name", COPIES)
def test_copies_of_a_changed_model_run_as_written(tools, pair, change, name):
    fused, unfused = pair
    change(fused), change(unfused)
    other = COPIES[name](fused)
    out, graph = ran(tools, other)
    assert not graph
    assert tools.same(out, ran(tools, unfused)[0], CLOSE)


@pytest.mark.parametrize("change", [attribute, config, swap_parts])
def test_a_change_that_is_taken_back(tools, pair, change):
    fused, _ = pair
    expected, _ = ran(tools, fused)
    state = {m: dict(vars(m)) for m in fused.modules()}
    parts = {m: dict(m._modules) for m in fused.modules()}
    activation = fused.config.activation
    change(fused)
    assert not ran(tools, fused)[1]
    fused.config.activation = activation
    for module in state:
        vars(module).update(state[module])
        module._modules.clear()
        module._modules.update(parts[module])
    out, graph = ran(tools, fused)
    assert graph
    assert tools.same(out, expected)


def values_of_a_norm(model):
    model.layers[0].norm.weight.data.mul_(2)


def another_parameter(model):
    model.layers[0].norm.weight = nn.Parameter(torch.full((64,), 0.5), requires_grad=False)


def a_buffer(model):
    model.shift = torch.zeros(64)


def values_of_a_layer(model):
    scales = {k: v * 2 for k, v in model.state_dict().items() if k.endswith("weight_scale")}
    model.load_state_dict({**model.state_dict(), **scales}, assign=True)


def an_unrelated_attribute(model):
    model.layers[0].note = "seen"


@pytest.mark.parametrize(
    "change",
    [values_of_a_norm, another_parameter, a_buffer, values_of_a_layer, an_unrelated_attribute],
)
def test_changes_that_the_graph_sees(tools, pair, change):
    fused, unfused = pair
    assert ran(tools, fused)[1]
    for model in pair:
        change(model)
    out, graph = ran(tools, fused)
    assert graph
    assert tools.same(out, ran(tools, unfused)[0], CLOSE)


def test_a_method_of_a_class(tools, pair, monkeypatch):
    fused, unfused = pair
    assert ran(tools, fused)[1]
    monkeypatch.setattr(Block, "forward", lambda self, x, **options: (x * 2, x))
    out, graph = ran(tools, fused)
    assert not graph
    assert tools.same(out, ran(tools, unfused)[0])


def test_modes(tools, pair):
    fused, unfused = pair
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, graph = ran(tools, fused)
        assert not graph
        assert tools.same(out, ran(tools, unfused)[0])
    handle = nn.modules.module.register_module_forward_hook(lambda m, args, out: None)
    assert not ran(tools, fused)[1]
    handle.remove()
    assert ran(tools, fused)[1]
    seen = []
    fused.register_forward_hook(lambda m, args, out: seen.append(out))
    assert ran(tools, fused)[1]  # the model's own hooks run around the graph
    assert len(seen) == 1


def test_gradients_are_those_of_the_forward_as_written(tools, x):
    class Net(tools.Layers):
        def forward(self, x, **options):
            y = x * 2 if "twice" in options else x
            return F.gelu(self.up(y)).sum(), self.same(y), self.last(y), x * 2

    model, plain = (
        pyops.quantize(Net(), include=nn.Linear, example_inputs=x, never_slower=False, fuse=fuse)
        for fuse in (True, False)
    )
    assert pyops.graph.captured_of(model) is not None
    assert tools.same(model(x), plain(x), CLOSE)
    x = x.requires_grad_()
    assert tools.outcome(model, x) is RuntimeError
    assert tools.outcome(plain, x) is RuntimeError


def test_half_precision(tools, pair):
    for model in pair:
        model.to(torch.bfloat16)
    out, graph = ran(tools, pair[0])
    assert not graph
    assert tools.same(out, ran(tools, pair[1])[0])


def test_parameters_that_require_grad(tools, pair):
    for model in pair:
        model.words.weight.requires_grad_()
    for model in pair:
        assert tools.outcome(model, **CALL) is RuntimeError  # int8 layers have no gradient
    out, graph = ran(tools, pair[0])
    assert graph  # under no_grad
    assert tools.same(out, ran(tools, pair[1])[0], CLOSE)


def test_train_mode(tools, pair):
    for model in pair:
        out, _ = ran(tools, model.train())
        assert out is RuntimeError


def test_functional_call(tools, pair):
    fused, unfused = pair
    values = {"layers.0.norm.weight": torch.full((64,), 2.0), "shift": torch.ones(64)}
    with torch.no_grad(), tools.count() as calls:
        out = torch.func.functional_call(fused, values, kwargs=CALL)
    assert GROUP in calls
    with torch.no_grad():
        assert tools.same(out, torch.func.functional_call(unfused, values, kwargs=CALL), CLOSE)


def test_tied_parameters_must_stay_tied(tools):
    class Tied(KeywordEncoder):
        def __init__(self):
            super().__init__()
            self.head = nn.Embedding(WORDS, 64)
            self.head.weight = self.words.weight

        def forward(self, *args, **options):
            return super().forward(*args, **options)["last"] @ self.head.weight.T

    fused, unfused = (
        pyops.quantize(
            Tied(), include=nn.Linear, example_inputs=CALL, never_slower=False, fuse=fuse
        )
        for fuse in (True, False)
    )
    assert ran(tools, fused)[1]
    for model in (fused, unfused):
        model.head.weight = nn.Parameter(torch.ones(WORDS, 64), requires_grad=False)
    out, graph = ran(tools, fused)
    assert not graph
    assert tools.same(out, ran(tools, unfused)[0], CLOSE)
