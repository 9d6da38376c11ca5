"""Fit the polynomials that the fused activations use, and print them as float32 constants.

``python scripts/fit_polynomials.py`` prints the coefficients that stand in
``csrc/cpu/common/activation.inl.h`` and ``pyops/ops/epilogue.py``, with the largest relative error
of each fit. Iteratively reweighted least squares on Chebyshev nodes: after a few dozen rounds it is
as flat as Remez' exchange.
"""

import math

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


def main() -> None:
    r = chebyshev_nodes(-0.5 * math.log(2) * 1.01, 0.5 * math.log(2) * 1.01)
    # exp(r) = 1 + r + r^2 q(r)
    q_target = (np.expm1(r) - r) / r**2
    q, _ = fit(r, q_target, range(5))
    q_value = sum(c * r**i for i, c in enumerate(q))
    exp_error = np.abs((1 + r + r**2 * q_value) / np.exp(r) - 1)
    show("exp: q(r), ascending powers", q, exp_error.max())

    # 0.5 erfc(z / sqrt 2) = exp(-z^2 / 2) * t * p(t),  t = 1 / (1 + 0.25 z)
    z = np.concatenate([chebyshev_nodes(0, 3), chebyshev_nodes(0, 14)])
    t = 1 / (1 + 0.25 * z)
    tail = np.array([0.5 * math.erfc(v / math.sqrt(2)) * math.exp(v * v / 2) for v in z])
    coefficients, error = fit(t, tail / t, range(9))
    show("normal tail: p(t), ascending powers", coefficients, error)


if __name__ == "__main__":
    main()
