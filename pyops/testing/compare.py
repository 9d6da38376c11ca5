"""Comparisons that say where two tensors differ, and bounds that are computed, not guessed."""

import torch
from torch import Tensor


def assert_same(out: Tensor, ref: Tensor, label: str) -> None:
    """Equal dtype, shape and every value; NaN equals NaN.

    Raises:
        AssertionError: names the first differing index and both values.
    """
    assert out.dtype == ref.dtype, f"{label}: dtype {out.dtype}, expected {ref.dtype}"
    assert out.shape == ref.shape, f"{label}: shape {tuple(out.shape)}, not {tuple(ref.shape)}"
    same = out == ref
    if out.is_floating_point():
        same |= torch.isnan(out) & torch.isnan(ref)
    if not bool(same.all()):
        at = tuple(int(i) for i in torch.nonzero(~same)[0])
        wrong = int((~same).sum())
        raise AssertionError(
            f"{label}: {wrong} of {out.numel()} values differ; at {at}: {out[at]}, not {ref[at]}"
        )


def assert_within(out: Tensor, ref: Tensor, bound: Tensor, label: str) -> None:
    """``|out - ref| <= bound`` element by element, in float64.

    Raises:
        AssertionError: names the worst index, both values and the bound there.
    """
    excess = (out.double() - ref.double()).abs() - bound.double()
    if not bool((excess <= 0).all()):
        at = tuple(
            int(i) for i in torch.unravel_index(excess.nan_to_num(torch.inf).argmax(), excess.shape)
        )
        raise AssertionError(f"{label}: at {at}: {out[at]}, not {ref[at]} +- {bound[at]}")


def sqnr_db(out: Tensor, ref: Tensor) -> float:
    """Signal-to-quantization-noise ratio of ``out`` in decibels; infinite where equal."""
    noise = (out.double() - ref.double()).square().sum()
    return float(10 * torch.log10(ref.double().square().sum() / noise))
