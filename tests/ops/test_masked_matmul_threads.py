"""Threads that share one pattern: each multiplies by its own values, and none waits for another."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyops import backends, ops
from pyops.nn import MaskedLinear
from pyops.testing.cases.masked_matmul import masked_case
from pyops.testing.compare import assert_within

pytestmark = pytest.mark.skipif(not backends.compiled(), reason="without kernels all is dense")


def together(*jobs: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # pytest does not see those of threads
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread waits forever"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("by_version", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_packed_bytes_in_use_do_not_change(by_version: bool, transposed: bool) -> None:
    case, state = masked_case(1, 64, 260, 300, 0.2), ops.SparsePattern(by_version)
    with state.weight(case.weight, case.mask, transposed) as first:
        before = first.clone()

        def other() -> None:  # not the thread that may hold the lock
            with state.weight(case.weight * 2, case.mask, transposed) as second:
                assert not torch.equal(second, before)

        together(other)
        assert torch.equal(first, before)
        state.forget()
        with state.weight(case.weight, case.mask, transposed) as third:
            assert torch.equal(third, before)
    with state.weight(case.weight * 2, case.mask, transposed) as fourth:
        assert fourth is third  # free again: its values are taken in place


@pytest.mark.parametrize("by_version", [True, False])
def test_threads_with_weights_and_masks_of_their_own(by_version: bool) -> None:
    state = ops.SparsePattern(by_version)
    cases = [masked_case(1, 64, 260, 300, 0.2) for _ in range(4)]
    for index, case in enumerate(cases):
        case.weight = case.weight * (index + 1)
    cases[3].mask = cases[3].mask.flip(0)

    def steps(index: int) -> Callable[[], None]:
        def run() -> None:
            case = cases[index]
            exact = case.exact()
            for _ in range(10):
                for out, (want, bound) in zip(case.step(state), exact, strict=True):
                    assert_within(out, want, bound, f"thread {index}")

        return run

    together(*(steps(index) for index in range(4)))


def test_threads_that_run_a_layer_first() -> None:
    """All at once, before it has a pattern."""
    x = torch.randn(64, 300)
    for _ in range(10):
        layer, outs = MaskedLinear(300, 260), list[Tensor]()
        layer.set_mask(torch.rand(260, 300) < 0.2)
        barrier = threading.Barrier(4)

        def run(
            layer: MaskedLinear = layer,
            outs: list[Tensor] = outs,
            barrier: threading.Barrier = barrier,
        ) -> None:
            barrier.wait(60)
            outs.append(layer(x).detach())

        together(run, run, run, run)
        assert layer.remark == "last run by sparse kernels"
        assert all(torch.equal(out, outs[0]) for out in outs)
