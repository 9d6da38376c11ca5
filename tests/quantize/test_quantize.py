"""quantize: what it converts, copies and in-place, ties, include/exclude, strict, refusals."""

from __future__ import annotations

import copy
import hashlib

import pytest
import torch
from torch import nn

import pyops
from pyops.nn import Int8Linear


def make(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 96, dtype=dtype),
        nn.GELU(),
        nn.BatchNorm1d(96, dtype=dtype),
        nn.Dropout(0.5),
        nn.Linear(96, 64, bias=False, dtype=dtype),
    )


class Tied(nn.Module):
    """Two Linears with one weight, and a head tied to an embedding."""

    def __init__(self, head_tied=True):
        super().__init__()
        self.embedding = nn.Embedding(100, 64)
        self.a = nn.Linear(64, 64)
        self.b = nn.Linear(64, 64)
        self.b.weight = self.a.weight
        self.head = nn.Linear(64, 100, bias=False)
        if head_tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.b(torch.relu(self.a(self.embedding(ids)))))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.again = self.first
        self.inner = nn.ModuleList([self.first, nn.Linear(64, 64)])

    def forward(self, x):
        return self.inner[1](self.again(self.first(x)))


def fingerprint(model):
    """Names, identities, values, grads, modes and plain attributes of everything in a model."""
    digest = hashlib.sha256()
    for name, module in model.named_modules(remove_duplicate=False):
        digest.update(repr((name, id(module), module.training, sorted(module.__dict__))).encode())
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                facts = (key, id(tensor), tensor.data_ptr(), tensor.dtype, tensor.requires_grad)
                digest.update(repr((*facts, tensor._version, tensor.grad is None)).encode())
                digest.update(tensor.detach().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_converts_every_linear(dtype):
    model = make(dtype)
    new = pyops.quantize(model)
    assert [type(m).__name__ for m in new] == [
        "Int8Linear",
        "GELU",
        "BatchNorm1d",
        "Dropout",
        "Int8Linear",
    ]
    x = torch.randn(5, 64).to(dtype)
    out, expected = new(x), model.eval()(x)
    assert out.dtype == dtype
    signal, noise = expected.float().square().sum(), (out - expected).float().square().sum()
    assert 10 * torch.log10(signal / noise) > 30


def test_the_root_itself():
    linear = nn.Linear(64, 96)
    new = pyops.quantize(linear)
    assert type(new) is Int8Linear
    x = torch.randn(3, 64)
    assert (new(x) - linear(x)).abs().max() < 0.05
    with pytest.raises(ValueError, match="inplace=True cannot turn the Linear itself"):
        pyops.quantize(linear, inplace=True)


def test_the_input_is_never_changed():
    for model, x in (
        (make().train(), torch.randn(5, 64)),
        (Tied(), torch.tensor([[1, 2]])),
        (Shared(), torch.randn(2, 64)),
    ):
        before = fingerprint(model)
        new = pyops.quantize(model)
        pyops.quantize(model, example_inputs=x)
        new(x)
        new.half().to("meta")
        assert fingerprint(model) == before
        assert any(module.training for module in model.modules())


def test_the_result_is_in_eval_mode_without_gradients():
    new = pyops.quantize(make().train())
    assert not any(module.training for module in new.modules())
    assert not any(p.requires_grad for p in new.parameters())
    assert not new(torch.randn(2, 64)).requires_grad  # runs outside no_grad too


def test_untouched_parameters_are_new_objects_over_the_same_storage():
    model = make()
    new = pyops.quantize(model)
    assert new[2].weight is not model[2].weight
    assert new[2].weight.data_ptr() == model[2].weight.data_ptr()
    assert new[2].running_mean.data_ptr() != model[2].running_mean.data_ptr()
    new.bfloat16()
    assert model[2].weight.dtype == torch.float32
    model.to(torch.float64)
    assert new[2].weight.dtype == torch.bfloat16


def test_training_the_input_leaves_gradients_and_statistics_of_the_copy_alone():
    model = make().train()
    new = pyops.quantize(model)
    model(torch.randn(8, 64)).sum().backward()
    assert new[2].weight.grad is None
    assert torch.equal(new[2].running_mean, torch.zeros(96))


def test_attributes_on_parameters_and_modules_are_kept():
    model = make()
    model[2].weight.my_mark = "kept"
    model.config = {"a": [1, 2]}
    new = pyops.quantize(model)
    assert new[2].weight.my_mark == "kept"
    assert new.config == model.config
    assert new.config is not model.config


def test_shared_modules_stay_shared():
    model = Shared()
    new = pyops.quantize(model)
    assert new.first is new.again is new.inner[0]
    assert new.first is not new.inner[1]
    assert type(new.first) is type(new.inner[1]) is Int8Linear
    x = torch.randn(3, 64)
    assert (new(x) - model(x)).abs().max() < 0.05
    assert [row.name for row in pyops.explain(new).rows] == ["first", "inner.1"]


@pytest.mark.parametrize("inplace", [False, True])
def test_tied_weights_are_packed_once_or_stay_tied_in_float(inplace):
    model = Tied()
    new = pyops.quantize(model, inplace=inplace)
    assert new.a is not new.b
    assert new.a.packed is new.b.packed
    assert not torch.equal(new.a.bias, new.b.bias)
    assert type(new.head) is nn.Linear
    assert new.head.weight is new.embedding.weight
    rows = {row.name: row for row in pyops.explain(new).rows}
    assert rows["head"].reason == "weight is tied to embedding.weight, which stays in float"
    assert rows["b"].reason.endswith("shares the packed weight of a")
    assert rows["b"].bytes_after == rows["b"].bytes_before == 4 * 64
    assert rows["a"].bytes_before == 4 * (64 * 64 + 64)
    with pytest.raises(ValueError, match=r"head: weight is tied to embedding\.weight"):
        pyops.quantize(Tied(), strict=True)


def test_a_tie_to_an_excluded_layer_stays_float():
    new = pyops.quantize(Tied(head_tied=False), exclude="b")
    assert type(new.a) is type(new.b) is nn.Linear
    assert new.a.weight is new.b.weight
    assert type(new.head) is Int8Linear
    rows = {row.name: row.reason for row in pyops.explain(new).rows}
    assert rows["a"] == "weight is tied to b.weight, which stays in float"
    assert rows["b"] == "excluded (exclude=)"


def test_inplace_converts_the_model_itself():
    model = make()
    first, norm = model[0], model[2].weight
    expected = pyops.quantize(copy.deepcopy(model))(torch.ones(2, 64))
    assert pyops.quantize(model, inplace=True) is model
    assert type(model[0]) is Int8Linear
    assert type(first) is nn.Linear
    assert model[2].weight is norm
    assert torch.equal(model(torch.ones(2, 64)), expected)


def test_a_failed_inplace_call_changes_nothing():
    model = nn.Sequential(make(), nn.Linear(8, 8)).train()
    before = fingerprint(model)
    with pytest.raises(ValueError, match="strict"):
        pyops.quantize(model, inplace=True, strict=True)
    with pytest.raises(ValueError, match="fails on example_inputs"):
        pyops.quantize(model, inplace=True, example_inputs=torch.randn(2, 3))
    assert fingerprint(model) == before


def test_quantizing_twice_names_the_layer():
    new = pyops.quantize(make(), exclude="4")
    with pytest.raises(ValueError, match=r"^0 is an Int8Linear already$"):
        pyops.quantize(new)


def test_recurrent_layers_beside_linears_survive_the_copy():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(16, 64, batch_first=True)
            self.head = nn.Linear(64, 64)

        def forward(self, x):
            return self.head(self.lstm(x)[0])

    model = Model()
    new = pyops.quantize(model)
    x = torch.randn(2, 5, 16)
    assert (new(x) - model(x)).abs().max() < 0.05
    assert new.lstm._flat_weights[0] is new.lstm.weight_ih_l0


def test_a_traced_graph_module():
    model = make().eval()
    traced = torch.fx.symbolic_trace(model)
    x = torch.randn(3, 64)
    assert torch.equal(pyops.quantize(traced)(x), pyops.quantize(model)(x))


def test_a_weight_cannot_be_assigned_over_an_int8_layer():
    new = pyops.quantize(make())
    with pytest.raises(KeyError, match="attribute 'weight' already exists"):
        new[0].weight = nn.Parameter(torch.zeros(96, 64))


def test_replaced_layers_do_not_keep_the_float_weight_alive():
    import gc
    import weakref

    model = make()
    weight = weakref.ref(model[0].weight)
    new = pyops.quantize(model, inplace=True)
    del model
    gc.collect()
    assert weight() is None
    assert type(new[0]) is Int8Linear
