// LayerNorm and RMSNorm of one row, in float32 with each step rounded:
//
//   centered:   y = (x - mean) * r * weight + bias      r = 1 / sqrt(mean((x - mean)^2) + eps)
//   otherwise:  y = x * r * weight + bias               r = 1 / sqrt(mean(x^2) + eps)
//
// A sum has kNormLanes partial sums, from +0, lane l taking the elements l, l + kNormLanes, ... in
// order; the upper half of the lanes is then added to the lower half until one is left. So all
// levels give the same bits.
#pragma once
#include "cpu/common/types.h"

namespace pyops::cpu {

// Four 16-lane vectors: enough independent sums to hide the latency of an addition.
constexpr int kNormLanes = 64;

struct NormRow {
  const void* x;
  Dtype x_type;
  int64_t n;
  bool centered;
  float eps;
  const void* weight;  // [n]; null means 1
  Dtype weight_type;
  const void* bias;  // [n]; null: nothing is added
  Dtype bias_type;
  void* y;  // may be x, if the types are the same
  Dtype y_type;
};

}  // namespace pyops::cpu
