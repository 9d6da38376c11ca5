// A random row through a norm.
#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "cpu/int8_gemm/int8_gemm.h"
#include "guarded.h"

using namespace pyops::cpu;

// y of a NormRow in double.
inline double norm_reference(const NormRow& row, const std::vector<float>& x, int64_t i) {
  double mean = 0.0, squares = 0.0;
  for (const float v : x) mean += row.centered ? v / double(row.n) : 0.0;
  for (const float v : x) squares += (v - mean) * (v - mean) / double(row.n);
  double y = (x[i] - mean) / std::sqrt(squares + row.eps);
  if (row.weight) y *= to_float(row.weight, row.weight_type, i);
  if (row.bias) y += to_float(row.bias, row.bias_type, i);
  return y;
}

// Whether it is the same bit for bit as by the generic kernel, and nearly as in double.
inline bool norm_as_by_formula(const Int8GemmKernel& kernel, const Int8GemmKernel& generic) {
  NormRow row = {};
  row.n = size_up_to(400), row.centered = coin(), row.eps = coin() ? 1e-5f : 1e-12f;
  row.x_type = static_cast<Dtype>(uniform(0, 2)), row.y_type = static_cast<Dtype>(uniform(0, 2));
  row.weight_type = static_cast<Dtype>(uniform(0, 2));
  row.bias_type = static_cast<Dtype>(uniform(0, 2));
  const auto filled = [&](const Guarded<char>& to, Dtype type) {
    std::vector<float> values(row.n);
    for (int64_t i = 0; i < row.n; ++i) {
      from_float(uniform_float(4.0f), type, to.get(), i);
      values[i] = to_float(to.get(), type, i);
    }
    return values;
  };
  const auto guarded = [&](Dtype type) {
    return Guarded<char>(row.n * dtype_bytes(type), dtype_bytes(type));
  };
  const Guarded<char> x = guarded(row.x_type), weight = guarded(row.weight_type);
  const Guarded<char> bias = guarded(row.bias_type), y = guarded(row.y_type);
  const Guarded<char> plain = guarded(row.y_type);
  const std::vector<float> values = filled(x, row.x_type);
  filled(weight, row.weight_type), filled(bias, row.bias_type);
  row.x = x.get(), row.weight = coin() ? weight.get() : nullptr;
  row.bias = coin() ? bias.get() : nullptr;
  row.y = plain.get();
  generic.norm_row(row);
  row.y = y.get();
  if (row.x_type == row.y_type && coin()) row.y = x.get();  // over the row itself
  kernel.norm_row(row);
  bool wrong = std::memcmp(row.y, plain.get(), plain.count()) != 0;
  const double step = row.y_type == Dtype::bf16 ? 1.0 / 128 : row.y_type == Dtype::f16 ? 1e-3 : 0;
  // A row of one or two values may cancel to nothing but its rounding: centered, such are left out.
  for (int64_t i = 0; i < row.n && (!row.centered || row.n > 8); ++i) {
    const double want = norm_reference(row, values, i);
    wrong |= !(std::fabs(to_float(row.y, row.y_type, i) - want) <= 1e-3 + step * std::fabs(want));
  }
  return !wrong;
}
