// Products of 8-bit codes with a sparse int8 weight, as every kernel file implements them:
// sparse_gemm.h with
//
//   sum[m][oc] = sum over k of x[m][g][k] * w[oc][k]       x: u8, from int8 codes q + 128
//
// in int32, exact, and then the epilogue of common/epilogue.h, whose zero_shift and w_sum undo the
// shift. Positions outside an image hold the code of 0.
#pragma once
#include <cstddef>

#include "cpu/sparse_gemm/few_rows.h"

namespace pyops::cpu {

extern KernelTable int8_sparse_gemm_kernels;

#define PYOPS_INT8_SPARSE_GEMM_KERNEL(name, isa, test_only, nr, kr, few, of, panels) \
  namespace name {                                                                   \
  void int8_sparse_tokens(const SparseTokens& task);                                 \
  void int8_sparse_multiply(const SparseSection& task);                              \
  void int8_sparse_finish(const SparseSums& task);                                   \
  void int8_sparse_few_rows(const SparseFewRows& task);                              \
  void int8_sparse_quads(const Int8GemmBlock& block);                                \
  void int8_sparse_windows8(const Int8GemmBlock& block);                             \
  void int8_sparse_windows16(const Int8GemmBlock& block);                            \
  }
#include "cpu/int8_sparse_gemm/kernels.inc"
#undef PYOPS_INT8_SPARSE_GEMM_KERNEL

}  // namespace pyops::cpu
