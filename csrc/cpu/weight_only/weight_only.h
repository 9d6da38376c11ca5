// Products of float rows with an int8 or int4 weight, as every kernel file implements them.
//
//   int8   sum[m][n] = sum_k x[m][k] * q[n][k]                       scale per column: the epilogue
//   int4   sum[m][n] = sum_g scale[n][g] * sum_{k in g} x[m][k] * (q[n][k] - zero[n][g])
//
// followed by the epilogue of common/epilogue.h from `v * scale_w` on. x is float32 (bf16 and fp16
// rows are widened first, which is exact), sums are float32 with fused multiply-adds, in order of
// k. One call does one block: some rows by one panel of w.
//
// With u = 2^-24, |w| the absolute dequantized weight and |z| = scale * |zero|, an element is
// within (K + 8) u (|x| @ (|w| + |z|)) of the exact sum, |z| being there only with zero points.
// Products are summed before they are scaled: where 127 * sum |x| passes 3.4e38 they become
// infinite.
#pragma once
#include "cpu/common/epilogue.h"
#include "cpu/isa.h"

namespace pyops::cpu {

// k is walked in steps of 8: one 32-bit word of a column holds eight int4 codes. Rows of x are
// padded with zeros, and codes with code 0, to a multiple of it.
constexpr int64_t kWeightDepth = 8;
// Depth of the part of a panel that is turned into floats at a time; all group sizes divide it.
constexpr int64_t kDecodeDepth = 128;
// Most rows of a block: bounds its sums on the stack.
constexpr int64_t kWeightRows = 96;
// Bytes behind the last panel that a kernel may read (and ignore): from any column on, a vector.
constexpr int64_t kWeightSlack = 64;

struct WeightFormat {
  int bits;   // 8 or 4
  int group;  // int4: 32, 64 or 128 values of k share a scale; int8: 0
  bool zeros;
};

struct WeightBlock {
  const float* x;  // rows x ldx, padded with zeros
  int64_t ldx;
  const float* x_sums;  // with zero points: [rows][ld_sums], the sum of x over each group
  int64_t ld_sums;
  const uint8_t* w;  // the panel (pack.h)
  int64_t k;
  WeightFormat format;
  int rows, cols;  // 0 < rows <= kWeightRows, 0 < cols <= nr, all the panel's columns
  int64_t n0;      // column of the matrix that column 0 of the panel is
  // Turn the panel into floats in L1, part by part, and multiply those; otherwise every tile of
  // mr rows decodes it in registers. The two round differently, so the caller decides by the
  // product's shape, not by the rows of a thread.
  bool decode;
  const Epilogue* epilogue;  // its rows count from the first row of this block
};

// A row as floats: x[0..k), zeros up to round_up(k, kWeightDepth), and where x_sums is not null the
// sum of every `group` values in some fixed order. Returns whether all sums are finite.
struct WidenRow {
  const void* x;
  Dtype x_type;
  int64_t k;
  float* out;
  float* x_sums;
  int group;
};

struct WeightKernel : KernelRow {
  int mr;               // rows of a tile
  int64_t decode_from;  // from so many rows on decoding first is faster
  void (*block)(const WeightBlock&);
  bool (*widen_row)(const WidenRow&);
};

extern KernelTable weight_only_kernels;

#define PYOPS_WEIGHT_ONLY_KERNEL(name, isa, test_only, mr, nr, decode_from) \
  namespace name {                                                          \
  void weight_only_block(const WeightBlock& block);                         \
  bool widen_row(const WidenRow& row);                                      \
  }
#include "cpu/weight_only/kernels.inc"
#undef PYOPS_WEIGHT_ONLY_KERNEL

}  // namespace pyops::cpu
