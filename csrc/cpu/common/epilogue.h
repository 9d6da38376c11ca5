// What happens to an int32 sum on its way to the output tensor. Each step is rounded to float32:
//
//   v = float(acc - (zero_a[m] + zero_shift) * w_sum[n])      the difference wraps modulo 2^32
//   v = v * scale_a[m];  v = v * scale_w[n];  v = v + bias[n];  v = v + residual[m][n];  v = act(v)
//   v = v * gate[m][n]
//   out[m][n] = v as float, or  clamp(rne(v * out_inverse_scale) + out_zero)  for s8 and u8,
//               or the int32 difference itself for s32
//
// A residual of 8-bit codes q is float(q - residual_zero) * residual_scale.
//
// m counts from the first row of a block, n from column 0 of the matrix. Null pointers mean 1, 0,
// or "absent"; a stride of 0 repeats one value over all rows.
#pragma once
#include "cpu/common/types.h"

namespace pyops::cpu {

// Whether codes can be clamped after they are packed, to [low_code, high_code], instead of values
// in an activation: the output is of codes, nothing but scales, a bias and uint8 codes of a
// residual come before, and no NaN. bounded: every value rounds to an int32; unit: also scale_a and
// out_inverse_scale are 1. (direct_codes.h)
enum class DirectCodes : int { none, scaled, bounded, unit };

struct Epilogue {
  const int32_t* w_sum;
  const float* scale_a;
  int64_t scale_a_stride;
  const int32_t* zero_a;
  int64_t zero_a_stride;
  int32_t zero_shift;
  const float* scale_w;
  const float* bias;
  const void* residual;
  Dtype residual_type;
  float residual_scale;
  int32_t residual_zero;
  const void* gate;
  Dtype gate_type;
  Activation activation;
  float low, high;     // of clamp
  const float* slope;  // of leaky_relu
  int64_t slope_stride;
  Dtype out_type;
  void* out;
  int64_t ld;  // elements from one row of out (residual, gate) to the next
  float out_inverse_scale;
  int32_t out_zero;
  DirectCodes direct;
  int32_t low_code, high_code;
};

}  // namespace pyops::cpu
