"""int8 products with a sparse weight: ops of dense weights that take one of ``sparse_pack`` too.

``int8_gemm``, ``int8_linear`` and ``int8_conv_relu`` compute the same integers from either, so the
same floats and codes. Here is what tells which kernel runs then.
"""

from .. import backends

OP = "int8_sparse_gemm"


def codes_kernel() -> str:
    """The kernel that runs on sparse int8 weights; ``"reference"`` without a compiled module."""
    return backends.kernel(OP)


def codes_layout() -> str:
    """Tag of the layout in which that kernel takes weights."""
    return backends.layout(OP)
