"""PackedWeight: held once, repacked after a change of kernel, copied, pickled, shared."""

from __future__ import annotations

import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn

import pyops
from pyops import backends, ops
from pyops.nn import Int8Linear, PackedWeight


def make(n=45, k=70):
    torch.manual_seed(0)
    return torch.randint(-127, 128, (n, k), dtype=torch.int8), torch.rand(n) + 0.1


@pytest.fixture
def other_layout(monkeypatch):
    """The tag of the wanted layout, changed and changed back without a second instruction set."""
    tag = backends.layout("int8_gemm")

    def change(name: str) -> None:
        monkeypatch.setattr(backends, "layout", lambda op: name or tag)
        pyops.isa.changed()

    yield change
    monkeypatch.undo()
    pyops.isa.changed()


def test_packs_eagerly_and_unpacks(isa):
    weight, scale = make()
    packed = PackedWeight(weight, scale)
    assert torch.equal(packed.get(), ops.int8_pack(weight))
    assert torch.equal(packed.unpack(), weight)
    assert torch.equal(packed.dequantize(torch.float32), weight * scale[:, None])


def test_from_float_in_blocks_is_the_same_as_at_once(monkeypatch):
    from pyops.nn import packed_weight

    weight = torch.randn(45, 70)
    values, scale = ops.quantize_weight(weight)
    for chunk in (1, 70, 200, 10**6):
        monkeypatch.setattr(packed_weight, "_QUANTIZE_CHUNK", chunk)
        for source in (weight, weight.t().contiguous().t()):
            packed = PackedWeight.from_float(source)
            assert torch.equal(packed.unpack(), values)
            assert torch.equal(packed.scale, scale)


def test_follows_the_forced_isa():
    weight, scale = make()
    layer = Int8Linear(PackedWeight(weight, scale))
    x = torch.randn(5, 70)
    expected = layer(x)
    for name in (*pyops.isa.available(), *reversed(pyops.isa.available())):
        with pyops.isa.force(name):
            assert torch.equal(layer(x), expected), name
            assert torch.equal(layer.packed.get(), ops.int8_pack(weight)), name
    assert torch.equal(layer(x), expected)


def test_follows_a_forced_kernel():
    weight, scale = make()
    layer = Int8Linear(PackedWeight(weight, scale))
    x = torch.randn(5, 70)
    expected = layer(x)
    for row in backends.implementations("int8_gemm"):
        if row.available:
            with backends.force("int8_gemm", row.name):
                assert torch.equal(layer(x), expected), row.name
                assert torch.equal(layer.packed.get(), ops.int8_pack(weight)), row.name


def test_repacks_only_when_the_layout_differs(other_layout, monkeypatch):
    from pyops.nn import packed_weight

    packs = []
    monkeypatch.setattr(packed_weight, "int8_pack", lambda w: packs.append(1) or ops.int8_pack(w))
    packed = PackedWeight(*make())
    data = packed.get()
    assert len(packs) == 1
    pyops.isa.changed()
    assert packed.get() is data
    other_layout("another")
    assert packed.get() is not data
    assert len(packs) == 2
    assert packed.get() is packed.get()
    assert len(packs) == 2


def test_repacks_once_for_many_threads(other_layout, monkeypatch):
    from pyops.nn import packed_weight

    packed = PackedWeight(*make())
    packs = []
    monkeypatch.setattr(packed_weight, "int8_pack", lambda w: packs.append(1) or ops.int8_pack(w))
    other_layout("another")
    start = threading.Barrier(8)
    seen = []

    def work() -> None:
        start.wait()
        seen.append(packed.get())

    threads = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(packs) == 1
    assert len({id(t) for t in seen}) == 1


def test_refresh_inside_a_fake_tensor_mode_packs_for_real(other_layout):
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    packed = PackedWeight(*make())
    other_layout("another")
    with FakeTensorMode():
        data = packed.get()
    assert not isinstance(data, FakeTensor)


def test_deepcopy_is_independent_and_keeps_sharing():
    packed = PackedWeight(*make())
    model = nn.Sequential(Int8Linear(packed), Int8Linear(packed))
    new = copy.deepcopy(model)
    assert new[0].packed is new[1].packed
    assert new[0].packed is not packed
    assert new[0].packed.get().data_ptr() != packed.get().data_ptr()
    assert new[0].packed.scale.data_ptr() != packed.scale.data_ptr()
    assert torch.equal(new[0].packed.get(), packed.get())


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol(protocol):
    for weight, scale in (make(), make(0, 5), make(5, 0)):
        new = pickle.loads(pickle.dumps(PackedWeight(weight, scale), protocol))
        assert torch.equal(new.unpack(), weight)
        assert torch.equal(new.scale, scale)
    meta = pickle.loads(pickle.dumps(Int8Linear(PackedWeight(*make())).to("meta"), protocol))
    assert meta.weight.device.type == "meta"


def test_torch_save_stores_the_weight_once_as_it_is():
    buffer = io.BytesIO()
    packed = PackedWeight(*make(300, 300))
    torch.save(nn.Sequential(Int8Linear(packed), Int8Linear(packed)), buffer)
    assert packed.unpack().numpy().tobytes() in buffer.getvalue()
    assert len(buffer.getvalue()) < 1.2 * 300 * 300


def test_pickle_holds_the_plain_weight_and_keeps_sharing():
    weight, scale = make(300, 300)
    packed = PackedWeight(weight, scale)
    model = nn.Sequential(Int8Linear(packed), Int8Linear(packed))
    data = pickle.dumps(model)
    assert weight.numpy().tobytes() in data
    assert len(data) < 1.2 * weight.numel()  # once, and no packed form beside it
    new = pickle.loads(data)
    assert new[0].packed is new[1].packed
    assert torch.equal(new[0].packed.unpack(), weight)


def test_torch_save_is_read_under_another_isa():
    layer = Int8Linear(PackedWeight(*make()), torch.randn(45))
    x = torch.randn(3, 70)
    expected = layer(x)
    for writer in pyops.isa.available():
        buffer = io.BytesIO()
        with pyops.isa.force(writer):
            torch.save(layer, buffer)
        for reader in pyops.isa.available():
            buffer.seek(0)
            with pyops.isa.force(reader):
                new = torch.load(buffer, weights_only=False)
                assert torch.equal(new(x), expected)


def test_the_tracer_gets_constants(monkeypatch):
    """torch 2.11 cannot hand an object to a function that runs at trace time."""
    from pyops.nn import packed_base

    layer, given = Int8Linear(PackedWeight(*make())), []
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(packed_base, "_refresh_while_tracing", lambda *a: given.extend(a))
    layer.packed.get()
    assert [type(value) for value in given] == [str, int]
    assert packed_base._by_key[given[0]] is layer.packed
    for other in (copy.deepcopy(layer.packed), pickle.loads(pickle.dumps(layer.packed))):
        assert other._key != layer.packed._key
        assert packed_base._by_key[other._key] is other


def test_a_view_does_not_keep_its_base_alive():
    scales = torch.rand(1000) + 0.1
    packed = PackedWeight(make()[0], scales[:45])
    assert packed.scale.untyped_storage().nbytes() == 4 * 45


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, s: (w.float(), s), r"weight is torch.float32 \[45, 70\], expected int8"),
        (lambda w, s: (w[0], s), r"weight is torch.int8 \[70\], expected int8 \[N, K\]"),
        (lambda w, s: (w, s.double()), r"scale is torch.float64 \[45\], expected float32 \[45\]"),
        (lambda w, s: (w, s[1:]), r"scale is torch.float32 \[44\], expected float32 \[45\]"),
        (lambda w, s: (w, s.to("meta")), "scale is on meta, but weight on cpu"),
        (lambda w, s: (torch.full_like(w, -128), s), "-128"),
        (lambda w, s: (w, s * float("nan")), "not finite and positive"),
        (lambda w, s: (w, s * 0), "not finite and positive"),
    ],
)
def test_wrong_tensors_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PackedWeight(*change(*make()))


def test_repr():
    assert repr(PackedWeight(*make())).startswith("PackedWeight(n=45, k=70, layout=")
