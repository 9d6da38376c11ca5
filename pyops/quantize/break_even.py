"""Sizes at which an int8 or int4 Linear loses to the float one, whatever the batch.

Per row the float layer costs K * N products; the int8 layer costs a fraction of that, plus the K
values it quantizes and the N it rescales, and a call costs a few microseconds more. Below 64 x 64
that outweighs the saving at every batch: from 1 to 1024 rows 48 x 48 runs at 0.45x to 0.76x of the
float layer's speed, 64 x 64 at 0.47x to 1.4x (``python bench/run.py int8_gemm --peers --shapes
small --only int8_linear``; two cores with AMX). A weight of 64K values is left out of the rule: at
one row it costs memory bandwidth, of which int8 needs a quarter. Elsewhere the answer depends on
batch and machine, and ``example_inputs`` measures it.
"""

from __future__ import annotations

MIN_FEATURES = 64
MIN_WEIGHTS = 1 << 16


def why_not_worth_it(in_features: int, out_features: int, label: str = "int8") -> str | None:
    """Why a layer of this size stays in float where nothing is timed; None where it may win.

    ``label``: what it would become.
    """
    if min(in_features, out_features) >= MIN_FEATURES or in_features * out_features >= MIN_WEIGHTS:
        return None
    return (
        f"too small to be faster in {label}: {in_features} x {out_features} weights, break-even is "
        f"{MIN_FEATURES} x {MIN_FEATURES} (include= converts it at any size)"
    )
