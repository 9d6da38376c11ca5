"""Fit the polynomials that the fused activations use, and print them as float32 constants.

``python scripts/fit_polynomials.py`` prints the coefficients that stand in
``csrc/cpu/common/activation.inl.h`` and ``pyops/ops/epilogue.py``, with the largest relative error
of each fit. Iteratively reweighted least squares on Chebyshev nodes: after a few dozen rounds it is
as flat as Remez' exchange.
"""

import math
from collections.abc import Callable

import numpy as np


def chebyshev_nodes(low: float, high: float, count: int = 2000) -> np.ndarray:
    angles = (np.arange(count) + 0.5) * math.pi / count
    return 0.5 * (low + high) + 0.5 * (high - low) * np.cos(angles)


def fit(x: np.ndarray, target: np.ndarray, powers: range) -> tuple[np.ndarray, float]:
    """Coefficients of ``sum c[i] x**powers[i]`` with the smallest largest relative error."""
    basis = np.stack([x**p for p in powers], 1) / target[:, None]
    weight = np.ones_like(x)
    best, best_error = np.zeros(len(powers)), math.inf
    for _ in range(400):
        root = np.sqrt(weight)[:, None]
        coefficients = np.linalg.lstsq(basis * root, root[:, 0], rcond=None)[0]
        error = np.abs(basis @ coefficients - 1)
        if error.max() < best_error:
            best, best_error = coefficients, error.max()
        weight = weight * (error / error.max() + 1e-3)
        weight /= weight.sum()
    return best, best_error


def show(name: str, coefficients: np.ndarray, error: float) -> None:
    print(f"{name}: largest relative error {error:.2e}")
    for c in coefficients:
        print(f"    {np.float32(c):.9g}")


INTERVALS, DEGREE = 16, 5
STEP = 23 / 64
LIMIT = np.float32(5.57)  # below 15.5 steps, where the rounded index would become 16


def fit_table(tail: Callable[[float], float]) -> tuple[np.ndarray, float]:
    """``[DEGREE + 1, INTERVALS]`` coefficients: ``tail((i + f) * STEP)``, f in [-0.5, 0.5].

    Interpolation at Chebyshev nodes. The last interval is made to end in 0 at LIMIT, exactly as
    evaluated in float32, so that everything beyond can be clamped to it.
    """
    columns, worst = [], 0.0
    for i in range(INTERVALS):
        f = chebyshev_nodes(-0.5 if i else 0.0, 0.5)
        target = np.array([tail((i + v) * STEP) for v in f])
        fitted = np.polynomial.chebyshev.Chebyshev.fit(f, target, DEGREE, domain=[-0.5, 0.5])
        c = fitted.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)
        if i == INTERVALS - 1:
            end = LIMIT * np.float32(1 / STEP) - np.float32(i)
            value = c[-1]
            for k in range(DEGREE - 1, 0, -1):
                value = value * end + c[k]
            c[0] = -(value * end)
        error = np.polynomial.polynomial.polyval(f, c.astype(np.float64)) - target
        worst = max(worst, float(np.abs(error).max()))
        columns.append(c)
    return np.stack(columns, 1), worst


def show_table(name: str, tail: Callable[[float], float]) -> None:
    table, error = fit_table(tail)
    print(f"{name}: largest error {error:.2e}, one line per power")
    for row in table:
        print("    " + ", ".join(f"{c:.9g}" for c in row))


def main() -> None:
    r = chebyshev_nodes(-0.5 * math.log(2) * 1.01, 0.5 * math.log(2) * 1.01)
    # exp(r) = 1 + r + r^2 q(r)
    q_target = (np.expm1(r) - r) / r**2
    q, _ = fit(r, q_target, range(5))
    q_value = sum(c * r**i for i, c in enumerate(q))
    exp_error = np.abs((1 + r + r**2 * q_value) / np.exp(r) - 1)
    show("exp: q(r), ascending powers", q, exp_error.max())

    show_table("kNormalTail", lambda z: 0.5 * math.erfc(z / math.sqrt(2)))
    scale = 2 * math.sqrt(2 / math.pi)
    show_table("kTanhTail", lambda z: 1 / (1 + math.exp(scale * (z + 0.044715 * z**3))))


if __name__ == "__main__":
    main()
