// Which epilogues may make codes without clamping values, and between which codes they then lie.
#pragma once
#include <cmath>
#include <cstring>

#include "cpu/common/epilogue.h"
#include "cpu/common/half.h"

namespace pyops::cpu {

// The largest magnitude, an Inf or NaN if there is one; `without` where there are no values.
inline float largest_magnitude(const float* values, int64_t count, float without) {
  if (!values) return without;
  int32_t most = 0;  // bits of magnitudes are in the order of magnitudes, and NaN above all
  for (int64_t i = 0; i < count; ++i) {
    int32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  float value;
  std::memcpy(&value, &most, sizeof value);
  return value;
}

// The code that the epilogue makes of v.
inline int32_t code_of(const Epilogue& e, float v) {
  const int32_t lowest = e.out_type == Dtype::u8 ? 0 : -128, highest = lowest + 255;
  const float low = static_cast<float>(lowest - e.out_zero);
  const float high = static_cast<float>(highest - e.out_zero);
  const float t = v * e.out_inverse_scale;
  return round_to_even(t < low ? low : t > high ? high : t) + e.out_zero;
}

// Sets e->direct, low_code and high_code, for n columns of sums of at most `sum` in magnitude.
// Multiplying by a positive number, rounding and saturating keep the order of numbers, so a clamp
// of values is one of codes, if there is no NaN: that takes a scale or bias that is not finite.
inline void find_direct_codes(Epilogue* e, int64_t n, double sum) {
  e->direct = DirectCodes::none;
  if ((e->out_type != Dtype::u8 && e->out_type != Dtype::s8) || e->gate) return;
  const bool clamp = e->activation == Activation::clamp;
  const bool relu = e->activation == Activation::relu;
  if (clamp ? !(e->low <= e->high) : !relu && e->activation != Activation::none) return;
  if (e->residual && e->residual_type != Dtype::u8) return;
  const bool small = !e->scale_a || (!e->scale_a_stride && std::fabs(*e->scale_a) <= 0x1p64f);
  const float scale = largest_magnitude(e->scale_w, n, 1.0f);
  const float bias = largest_magnitude(e->bias, n, 0.0f);
  if (!small || !std::isfinite(scale) || !std::isfinite(bias)) return;
  const bool unit = (!e->scale_a || *e->scale_a == 1.0f) && e->out_inverse_scale == 1.0f;
  const double residual = e->residual ? 255.0 * e->residual_scale : 0.0;
  const double scale_a = e->scale_a ? std::fabs(*e->scale_a) : 1.0;
  const double most = sum * scale_a * scale + bias + residual;  // of a value before the last scale
  const bool bounded = most < 0x1p100 && most * e->out_inverse_scale < 0x1p30;
  e->direct = !bounded ? DirectCodes::scaled : unit ? DirectCodes::unit : DirectCodes::bounded;
  e->low_code = code_of(*e, clamp ? e->low : relu ? 0.0f : -INFINITY);
  e->high_code = code_of(*e, clamp ? e->high : INFINITY);
}

}  // namespace pyops::cpu
