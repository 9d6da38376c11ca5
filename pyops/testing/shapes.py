"""Sizes that try every tail of a vectorised loop."""


def simd_sizes(limit: int) -> list[int]:
    """1 .. limit: powers of two and small multiples of a vector, each with its neighbours."""
    around = {2**i for i in range(limit.bit_length())} | {3 * 2**i for i in range(3, 7)}
    sizes = {n + d for n in around for d in (-1, 0, 1)}
    return sorted(n for n in sizes if 1 <= n <= limit)
