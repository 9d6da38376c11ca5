"""A converted model under torch.compile, torch.export, autocast, deepcopy, threads and fork."""

from __future__ import annotations

import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import pyops
from pyops.testing.outputs import OutputsOf


def make(dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.LayerNorm(96), nn.Linear(96, 64))
    return pyops.quantize(model.to(dtype))


X = torch.linspace(-2, 2, 6 * 64).reshape(6, 64).sin()


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_compile_without_a_graph_break():
    model = make()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for rows in (6, 3, 1):
        assert torch.equal(compiled(X[:rows]), model(X[:rows]))
    with torch.inference_mode():
        assert torch.equal(compiled(X), model(X))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(compiled(X), model(X))


def test_compiled_models_follow_the_forced_isa():
    model = make()
    expected = model(X)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for name in pyops.isa.available():
        with pyops.isa.force(name):
            assert torch.equal(compiled(X), expected), name
    assert torch.equal(compiled(X), expected)


def test_compiling_under_a_forced_isa_repacks_at_trace_time():
    model = make()
    expected = model(X)
    with pyops.isa.force(pyops.isa.available()[0]):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(X), expected)
    assert torch.equal(model(X), expected)


def test_one_graph_is_compiled_for_repeated_calls():
    model = make()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for _ in range(4):
        compiled(X)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_compile_with_inductor():
    model = make()
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        assert (compiled(X) - model(X)).abs().max() < 1e-5


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    model = make()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (X,), dynamic_shapes=({0: batch},), strict=strict)
    assert "pyops.int8_rows.default" in str(program.graph)
    assert torch.equal(program.module()(X), model(X))
    assert torch.equal(program.module()(X[:3]), model(X[:3]))


def test_export_under_a_changed_isa_packs_for_real():
    model = make()
    expected = model(X)
    with pyops.isa.force(pyops.isa.available()[0]):
        program = torch.export.export(model, (X,))
        assert torch.equal(program.module()(X), expected)


def test_autocast_of_a_float_model():
    model = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(X)
    assert out.dtype == torch.bfloat16
    assert (out.float() - model(X)).abs().max() < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_models(dtype):
    model = make(dtype)
    assert model(X.to(dtype)).dtype == dtype
    assert (model(X.to(dtype)).float() - make()(X)).abs().max() < 0.1


@pytest.mark.parametrize("cast", ["half", "bfloat16"])
def test_casting_the_converted_model(cast):
    model = getattr(make(), cast)()
    x = getattr(X, cast)()
    assert model(x).dtype == x.dtype
    assert model[0].weight_scale.dtype == torch.float32
    assert (model(x).float() - make()(X)).abs().max() < 0.1


def test_deepcopy_pickle_and_torch_save():
    model = make()
    expected = model(X)
    report = pyops.explain(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(other(X), expected)
        assert pyops.explain(other) == report
        assert not other.training


def test_state_dict_between_two_conversions():
    model = make()
    torch.manual_seed(1)
    other = pyops.quantize(
        nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.LayerNorm(96), nn.Linear(96, 64))
    )
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(X), model(X))


def test_many_threads_call_one_model():
    model = make()
    expected = model(X)
    outputs, errors = [], []
    start = threading.Barrier(8)

    def work() -> None:
        try:
            start.wait()
            with torch.inference_mode():
                outputs.extend(model(X) for _ in range(25))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not errors
    assert len(outputs) == 200
    assert all(torch.equal(out, expected) for out in outputs)


def test_threads_repack_together_after_a_change_of_isa():
    model = make()
    expected = model(X)
    for name in pyops.isa.available():
        with pyops.isa.force(name):
            outputs = []
            threads = [
                threading.Thread(target=lambda: outputs.append(model(X)))  # noqa: B023
                for _ in range(8)
            ]
            [t.start() for t in threads]
            [t.join() for t in threads]
            assert len(outputs) == 8
            assert all(torch.equal(out, expected) for out in outputs)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_worker_process_calls_the_model(start):
    model = make()
    expected = model(X)  # the parent's thread pool has run before the fork
    # Seconds, not for ever, where a worker hangs on a lock or on a thread pool it inherited.
    loader = DataLoader(
        OutputsOf(model, X), batch_size=2, num_workers=1, multiprocessing_context=start, timeout=60
    )
    assert torch.equal(torch.cat(list(loader)), expected)


def test_a_worker_forked_while_another_thread_repacks():
    from pyops.nn import packed_base

    model = make()
    expected = model(X)
    with packed_base.repack_lock:
        pyops.isa.changed()  # so that the worker needs the lock
        loader = DataLoader(
            OutputsOf(model, X),
            batch_size=6,
            num_workers=1,
            multiprocessing_context="fork",
            timeout=60,
        )
        assert torch.equal(next(iter(loader)), expected)
