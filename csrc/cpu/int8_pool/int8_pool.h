// Ops on 8-bit codes between layers, as every kernel file implements them. A code q stands for
// (q - zero) * scale.
//
// Rows (quantize, dequantize, requantize, add), each step rounded to float32:
//
//   v(t) = float(t - t_zero) * t_scale    of codes t, or t itself where it is a float
//   v = v(a) + v(b);   v = min(max(v, low), high);   out = store(v)
//
// Pools over NHWC images, the taps of a window being positions inside the image:
//
//   max      out = max q, or where scale, zero point or type change  store(float(max q - zero) * s)
//   average  out = store(float(sum (q - zero)) * s),   s = float32(scale / divisor)
//
// store(v) is v as float, or clamp(rne(v * (1 / out_scale)) + out_zero) as s8 and u8, NaN being the
// lowest code. Sums are int32 and exact: at most kMostTaps taps. A window without taps has the
// lowest code, and sum 0.
#pragma once
#include "cpu/common/epilogue.h"
#include "cpu/isa.h"

namespace pyops::cpu {

constexpr int64_t kMostTaps = 1 << 23;  // times 255 stays below 2^31

struct CodeTerm {
  const void* data;
  Dtype type;  // u8 or s8; f32, bf16 and f16 have neither scale nor zero
  float scale;
  int32_t zero;
  int64_t ld;  // elements from one row to the next
};

struct CodeRows {
  CodeTerm a, b;  // b.data null: absent, and no clamp; b is never of floats, nor a beside one
  float low, high;
  Dtype out_type;
  void* out;
  int64_t ld_out;
  float out_inverse_scale;
  int32_t out_zero;
  int64_t rows, cols;
};

enum class PoolKind : int { max = 0, average = 1 };

// Positions begin, begin + step, ... of an axis.
struct PoolTaps {
  int64_t begin, count;
};

// One row of pixels of the output.
struct PoolRow {
  const uint8_t* x;  // position 0, 0 of the image
  int64_t line, c;   // bytes from one row to the next; from one pixel to the next
  bool is_signed;
  PoolKind kind;
  int32_t zero;
  PoolTaps y;
  int64_t step_y, step_x;
  const PoolTaps* x_taps;  // of each pixel
  int64_t ow;
  // Row m is pixel m, scale_a its s; null: the greatest codes are written to `out` as they are.
  const Epilogue* epilogue;
  uint8_t* out;
};

struct Int8PoolKernel : KernelRow {
  void (*code_rows)(const CodeRows&);
  void (*pool_row)(const PoolRow&);
};

extern KernelTable int8_pool_kernels;

#define PYOPS_INT8_POOL_KERNEL(name, isa, test_only, codes) \
  namespace name {                                          \
  void code_rows(const CodeRows& rows);                     \
  void pool_row(const PoolRow& row);                        \
  }
#include "cpu/int8_pool/kernels.inc"
#undef PYOPS_INT8_POOL_KERNEL

}  // namespace pyops::cpu
