// Products of codes with a sparse weight, on pointers, of arguments that are checked. Only drivers
// include this.
#pragma once
#include "cpu/common/conv_shape.h"
#include "cpu/int8_gemm/int8_gemm.h"
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

namespace pyops::cpu {

// x: NHWC codes, int8 if `is_signed`, else uint8; padding: the code of 0; packed: a weight that the
// active kernel reads. The epilogue's w_sum and zero_shift are set here; its rows are the pixels of
// the output.
void sparse_codes(const ConvShape& shape, const void* x, bool is_signed, uint8_t padding,
                  const void* packed, const Epilogue& epilogue);

// Rows of floats [m, k], which are quantized: symmetric, a scale for each (int8_gemm.h). The
// epilogue lacks what depends on that.
void sparse_rows(const void* x, Dtype type, int64_t m, const void* packed,
                 const Epilogue& epilogue);

// What multiplies the panels of a weight that the active kernel reads.
Int8GemmKernel panel_kernel(const void* packed);

// A product [m, k] x [k, n]: images of one pixel.
ConvShape rows_shape(int64_t m, int64_t k, int64_t n);

}  // namespace pyops::cpu
