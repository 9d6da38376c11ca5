// A random product with a random epilogue.
#pragma once
#include <cmath>
#include <vector>

#include "cpu/int8_gemm/int8_gemm.h"
#include "guarded.h"

using namespace pyops::cpu;

struct Problem {
  int64_t rows, n, k, n0, cols, ld, panel;
  bool is_signed, per_row, has_zero, has_bias, has_residual;
  bool folded;  // uint8 codes, a residual of them included; scales of rows and of the output are 1
  Activation activation;
  Dtype out_type, residual_type;
  float out_inverse_scale;
  int32_t out_zero;
  std::vector<int8_t> w, a;  // a: int8 or, reinterpreted, uint8 codes
  std::vector<float> scale_a, scale_w, bias;
  std::vector<int32_t> zero_a;
  std::vector<char> residual;
  float residual_scale;
  int32_t residual_zero;

  int32_t code(int64_t m, int64_t i) const {
    return is_signed ? a[m * k + i] : static_cast<uint8_t>(a[m * k + i]);
  }
  int64_t out_count() const { return (rows - 1) * ld + n0 + cols; }
};

// k: 0 for a random one.
inline Problem random_problem(int nr, int64_t k = 0) {
  Problem p;
  p.rows = size_up_to(40), p.n = size_up_to(200), p.k = k ? k : size_up_to(300), p.panel = nr;
  p.n0 = uniform(0, (p.n - 1) / nr) * nr;
  const int64_t stored = min64(nr, p.n - p.n0);
  p.cols = coin() ? stored : uniform(1, stored);
  p.ld = p.n + uniform(0, 3);
  p.is_signed = coin(), p.per_row = coin(), p.has_zero = coin();
  p.has_bias = coin(), p.has_residual = coin();
  p.activation = static_cast<Activation>(uniform(0, 4));
  p.out_type = static_cast<Dtype>(uniform(0, 5));
  p.residual_type = static_cast<Dtype>(uniform(0, 2));
  p.out_inverse_scale = 1.0f / (0.01f + std::fabs(uniform_float(1.0f)));
  p.folded = uniform(0, 3) == 0;
  if (p.folded) {
    p.per_row = false, p.out_inverse_scale = 1, p.activation = static_cast<Activation>(coin());
    p.out_type = p.residual_type = Dtype::u8;
  }
  p.out_zero = p.folded && coin()        ? 0
               : p.out_type == Dtype::u8 ? uniform(0, 255)
                                         : uniform(-128, 127);
  p.residual_scale = p.folded ? std::fabs(uniform_float(2.0f)) + 1e-6f : 0.0f;
  p.residual_zero = p.folded ? uniform(0, 255) : 0;
  const int64_t extreme = uniform(0, 9);  // one in ten: all operands at their limits
  // A sum of uniform numbers is nearly normal: few weights are cut. Uniform ones: many.
  const int64_t terms = coin() ? 1 : 4, lowest = coin() ? -128 : -127;
  for (int64_t i = 0; i < p.n * p.k; ++i) {
    int64_t sum = 0;
    for (int64_t t = 0; t < terms; ++t) sum += uniform(lowest, 127);
    p.w.push_back(extreme ? sum / terms : lowest);
  }
  for (int64_t i = 0; i < p.rows * p.k; ++i) p.a.push_back(extreme ? rng() : 128);
  for (int64_t i = 0; i < p.rows; ++i) {
    p.scale_a.push_back(p.folded ? 1.0f : std::fabs(uniform_float(0.1f)) + 1e-6f);
    p.zero_a.push_back(p.is_signed ? uniform(-128, 127) : uniform(0, 255));
  }
  for (int64_t i = 0; i < p.n; ++i) {
    p.scale_w.push_back(std::fabs(uniform_float(p.folded ? 2e-3f : 0.1f)) + 1e-6f);
    p.bias.push_back(uniform_float(p.folded ? 200.0f : 3.0f));
  }
  p.residual.resize(p.out_count() * dtype_bytes(p.residual_type));
  for (int64_t i = 0; i < p.out_count(); ++i) {
    if (p.folded) {
      p.residual[i] = static_cast<char>(rng());
    } else {
      from_float(uniform_float(5.0f), p.residual_type, p.residual.data(), i);
    }
  }
  return p;
}
