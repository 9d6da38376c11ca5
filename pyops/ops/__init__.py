"""The ops, one module per stem: schema, reference in plain torch, fake, public function."""

from .epilogue import ACTIVATIONS
from .int8_gemm import int8_gemm, int8_pack, int8_unpack, quantize_rows, quantize_weight
from .int8_gemm_linear import int8_linear
from .int8_gemm_rows import RowProgram, int8_rows

__all__ = [
    "ACTIVATIONS",
    "RowProgram",
    "int8_gemm",
    "int8_linear",
    "int8_pack",
    "int8_rows",
    "int8_unpack",
    "quantize_rows",
    "quantize_weight",
]
