"""The ops, one module per stem: schema, reference in plain torch, fake, public function."""

from .attention import attention, attention_rows
from .conv_relu import conv_relu, conv_relu_pack, conv_relu_unpack
from .epilogue import ACTIVATIONS, CONV_ACTIVATIONS
from .int8_conv_relu import int8_conv_pack, int8_conv_relu, int8_conv_unpack
from .int8_gemm import int8_gemm, int8_pack, int8_unpack, quantize_rows, quantize_weight
from .int8_gemm_linear import int8_linear
from .int8_gemm_rows import RowProgram, int8_rows
from .int8_pool import int8_adaptive_pool, int8_pool
from .int8_pool_codes import int8_add, int8_concat, int8_dequantize, int8_quantize
from .masked_matmul import (
    SparsePattern,
    masked_matmul,
    masked_matmul_plan,
    masked_pack,
    masked_unpack,
    masked_weight_grad,
)
from .net import NetProgram, run_net
from .net_prepared import PreparedNet
from .sparse_gemm import sparse_linear, sparse_pack, sparse_refresh, sparse_unpack
from .weight_only import int4_linear, int8_weight_linear
from .weight_only_pack import (
    int4_pack,
    int4_unpack,
    int8_weight_pack,
    int8_weight_unpack,
    quantize_weight_int4,
)

__all__ = [
    "ACTIVATIONS",
    "CONV_ACTIVATIONS",
    "NetProgram",
    "PreparedNet",
    "RowProgram",
    "SparsePattern",
    "attention",
    "attention_rows",
    "conv_relu",
    "conv_relu_pack",
    "conv_relu_unpack",
    "int4_linear",
    "int4_pack",
    "int4_unpack",
    "int8_adaptive_pool",
    "int8_add",
    "int8_concat",
    "int8_conv_pack",
    "int8_conv_relu",
    "int8_conv_unpack",
    "int8_dequantize",
    "int8_gemm",
    "int8_linear",
    "int8_pack",
    "int8_pool",
    "int8_quantize",
    "int8_rows",
    "int8_unpack",
    "int8_weight_linear",
    "int8_weight_pack",
    "int8_weight_unpack",
    "masked_matmul",
    "masked_matmul_plan",
    "masked_pack",
    "masked_unpack",
    "masked_weight_grad",
    "quantize_rows",
    "quantize_weight",
    "quantize_weight_int4",
    "run_net",
    "sparse_linear",
    "sparse_pack",
    "sparse_refresh",
    "sparse_unpack",
]
