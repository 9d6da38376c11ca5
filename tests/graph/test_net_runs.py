"""Runs of int8 steps in one call: the same results, whatever happens to the layers meanwhile."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import pyops
from pyops.graph import net_calls as calls
from pyops.graph import net_forward, net_run
from pyops.graph.net_join import join_runs
from pyops.graph.net_run import NetRun


class Net(nn.Module):
    """Shortcuts, a concatenation, pools, every activation, codes that float code reads as well.

    Without slopes a run is prepared once.
    """

    def __init__(self, slopes: bool = True) -> None:
        super().__init__()
        self.leaky = nn.LeakyReLU(0.1) if slopes else nn.ReLU()
        self.first, self.depthwise = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8)
        self.point, self.side = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, bias=False)
        self.last = nn.Conv2d(16, 8, 3, groups=2)
        self.prelu = nn.PReLU(8) if slopes else nn.ReLU6()
        self.fc, self.out = nn.Linear(8 * 4, 12), nn.Linear(12, 5)

    def forward(self, x):
        x = F.relu6(self.first(x))
        y = self.leaky(self.depthwise(F.pad(x, (1, 1, 1, 1))))
        y = F.relu(self.point(y) + x)
        z = torch.cat([F.max_pool2d(y, 2), F.avg_pool2d(F.hardswish(self.side(y)), 2)], 1)
        z = F.adaptive_avg_pool2d(self.prelu(self.last(z)), 2)
        return self.out(F.relu(self.fc(z.flatten(1)))), y.softmax(1)


def quantized(monkeypatch, joins=True, folds=True, model=None, slopes=True):
    torch.manual_seed(0)
    model = (Net(slopes) if model is None else model).eval().requires_grad_(False)
    batches = [torch.randn(4, 3, 12, 12) for _ in range(3)]
    with monkeypatch.context() as patch:
        if not joins:
            patch.setattr(net_forward, "join_runs", lambda graph, owner: [])
        net = pyops.quantize(model, calibration=batches)
    if not folds:
        monkeypatch.setattr(net_run, "foldable", lambda *_: False)
    return net


def runs_of(net) -> list[NetRun]:
    (variant,) = net.__dict__["forward"].variants.values()
    return [one for one in variant.names.values() if isinstance(one, NetRun)]


def same(a, b):
    return all(map(torch.equal, a, b))


@pytest.mark.parametrize("name", pyops.isa.available())
@pytest.mark.parametrize("size", [12, 15])
@pytest.mark.parametrize("slopes", [False, True])
def test_a_joined_net_computes_what_its_steps_do(monkeypatch, name, size, slopes):
    apart = quantized(monkeypatch, joins=False, slopes=slopes)
    joined = quantized(monkeypatch, folds=False, slopes=slopes)
    assert not runs_of(apart)
    assert runs_of(joined)
    x = torch.randn(3, 3, size, size)
    with pyops.isa.force(name), torch.no_grad():
        assert same(joined(x), apart(x))
        assert same(joined(x.contiguous(memory_format=torch.channels_last)), apart(x))


def test_explain_counts_the_steps(monkeypatch):
    net = quantized(monkeypatch)
    counts = net.__dict__["forward"].runs
    assert counts
    (text,) = pyops.explain(net).graphs
    assert f"{' + '.join(map(str, counts))} steps run in" in text
    assert "of run_net" in text


def test_folding_moves_codes_by_one_at_most(monkeypatch):
    differ = total = 0
    for seed in range(8):
        torch.manual_seed(seed)
        conv = nn.Conv2d(16, 32, 3, padding=1).eval().requires_grad_(False)

        class Pair(nn.Module):
            def __init__(self, conv: nn.Module) -> None:
                super().__init__()
                self.conv, self.pool = conv, nn.MaxPool2d(1)

            def forward(self, x):
                return self.pool(F.relu6(self.conv(x)))

        net = pyops.quantize(Pair(conv), calibration=[torch.randn(4, 16, 14, 14)])
        run = runs_of(net)[0]
        (layer,) = run.layers
        assert layer.folded is not None
        x = torch.randn(2, 16, 14, 14)
        step = net.__dict__["forward"].plan.edges["conv"][0]
        with torch.no_grad():
            folded = net(x)
            with monkeypatch.context() as patch:
                patch.setattr(net_run, "foldable", lambda *_: False)
                apart = copy.deepcopy(net)(x)
        off = ((folded - apart) / step).abs()
        assert float(off.max()) < 1.01
        differ += int((off > 0.5).sum())
        total += off.numel()
    assert differ < total / 1000


def test_what_cannot_be_folded(monkeypatch):
    scale = torch.tensor([0.01, 1e-30])
    assert net_run.foldable(scale, 1.0)
    assert not net_run.foldable(scale, 1e-9)
    assert not net_run.foldable(torch.tensor([1.0, 3e38]), 2.0)
    assert not net_run.foldable(torch.empty(0), 1.0)
    net = quantized(monkeypatch)
    folded = {layer.path: layer.folded is not None for run in runs_of(net) for layer in run.layers}
    assert folded["first"]
    assert folded["depthwise"]
    assert folded["point"]
    assert not folded["side"]  # hardswish is not homogeneous
    assert not folded["out"]  # makes floats


def changes():
    def in_place(net):
        net.first.bias.add_(1)

    def scale_in_place(net):
        net.depthwise.packed.scale.mul_(2)

    def exchanged(net):
        net.fc._buffers["bias"] = net.fc.bias * 2

    def assigned(net):
        weight, scale = net.point.packed.unpack(), net.point.packed.scale
        net.point.packed.assign(-weight, scale * 2)

    def loaded(net):
        state = {k: v * 2 if k.endswith("bias") else v for k, v in net.state_dict().items()}
        net.load_state_dict(state)

    def moved(net):
        net.share_memory()
        net.fc.bias.mul_(2)

    return (in_place, scale_in_place, exchanged, assigned, loaded, moved)


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.__name__)
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("slopes", [False, True])
def test_changed_layers_are_seen(monkeypatch, change, inference, slopes):
    net, x = quantized(monkeypatch, slopes=slopes), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        before = net(x)
        context = torch.inference_mode() if inference and change.__name__ == "exchanged" else None
        if context is None:
            change(net)
        else:
            with context:
                change(net)
        after, fresh = net(x), copy.deepcopy(net)(x)
    assert not same(after, before)
    assert same(after, fresh)


@pytest.mark.parametrize("slopes", [False, True])
def test_inference_tensors_change_without_a_version(monkeypatch, slopes):
    net, x = quantized(monkeypatch, slopes=slopes), torch.randn(2, 3, 12, 12)
    with torch.inference_mode():
        net.fc._buffers["bias"] = net.fc.bias * 2
        before = net(x)
        net.fc._buffers["bias"].add_(1)
        after = net(x)
        assert not same(after, before)
        assert same(after, copy.deepcopy(net)(x))


def test_a_bias_that_comes_is_refused(monkeypatch):
    net, x = quantized(monkeypatch), torch.randn(2, 3, 12, 12)
    net.side._buffers["bias"] = torch.zeros(8)
    with torch.no_grad(), pytest.raises(RuntimeError, match="side has bias, which the net's graph"):
        net(x)


def test_copies_have_layers_of_their_own(monkeypatch):
    net, x = quantized(monkeypatch), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        before = net(x)
        other, third = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
        assert same(other(x), before)
        assert same(third(x), before)
        other.first.bias.add_(1)
        assert not same(other(x), before)
        assert same(net(x), before)
        assert same(third(x), before)


def test_a_copy_is_freed(monkeypatch):

    net, x = quantized(monkeypatch), torch.randn(2, 3, 12, 12)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other(x)
    gone = weakref.ref(other)
    del other

    gc.collect()
    assert gone() is None


def test_compile_and_export_give_the_same_codes(monkeypatch):
    net, x = quantized(monkeypatch), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        expected = net(x)
        exported = torch.export.export(net, (x,)).module()(x)
        assert same(exported[:1], expected[:1])
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")(x)
        assert same(compiled[:1], expected[:1])


def test_gradients_are_refused(monkeypatch):
    net = quantized(monkeypatch)
    with pytest.raises(RuntimeError, match="this net has no gradient but its input"):
        net(torch.randn(1, 3, 12, 12, requires_grad=True))


def test_single_steps_stay():
    graph = fx.Graph()
    x = graph.placeholder("x")
    y = graph.call_function(calls.quantize, (x, 0.1, 3))
    y.meta.update(int8=True, shape=(1, 3, 4, 4))
    graph.output(graph.call_function(torch.neg, (y,)))
    assert join_runs(graph, nn.Module()) == []
    assert calls.quantize in [node.target for node in graph.nodes]


@pytest.mark.parametrize("slopes", [False, True])
def test_threads_may_make_the_first_call_together(monkeypatch, slopes):
    net, x = quantized(monkeypatch, slopes=slopes), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        expected = copy.deepcopy(net)(x)

    def first(one):
        with torch.no_grad():
            return one(x)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            one = copy.deepcopy(net)
            assert all(same(out, expected) for out in pool.map(first, [one] * 8))


def test_what_is_recorded_means_something_elsewhere(monkeypatch):
    """A number of this process is in no trace, and fake tensors are in no net that is kept."""
    net, x = quantized(monkeypatch, slopes=False), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert net(torch.empty(2, 3, 12, 12))[0].shape == (2, 5)
        expected = net(x)
        assert same(expected, copy.deepcopy(net)(x))
        for recorded in (torch.jit.trace(net, x).graph, make_fx(net)(x).graph):
            assert "pyops.run_net" in str(recorded).replace("::", ".")
            assert "run_prepared_net" not in str(recorded)
        assert same(net(x), expected)


def test_another_choice_of_kernels_prepares_another_net(monkeypatch):
    net, x = quantized(monkeypatch, slopes=False), torch.randn(2, 3, 12, 12)
    run = runs_of(net)[0]
    with torch.no_grad():
        net(x)
        before = run._bound[net].last
        with pyops.isa.force("generic"):
            for layer in (net.first, net.fc):
                layer.packed.get()  # packed again by somebody else
            net(x)
            forced = run._bound[net].last
        net(x)
        after = run._bound[net].last
    assert before.epoch < forced.epoch < after.epoch
    assert len({id(taken.net) for taken in (before, forced, after)}) == 3
