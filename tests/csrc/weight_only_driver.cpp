// Runs every weight_only kernel that this CPU has on random problems, without torch or Python, so
// that it can run under sanitizers and on emulated CPUs.
//
//   weight_only_driver [--cases N] [--seed N]
//
// Results are compared with double, within the bound of weight_only.h; buffers end (or begin) at an
// unmapped page.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "cpu/weight_only/pack.h"
#include "guarded.h"
#include "run_kernels.h"

using namespace pyops::cpu;

namespace {

int failures = 0;
constexpr double kUnit = 1.0 / (1 << 24);

struct Problem {
  int64_t m, n, k;
  WeightFormat format;
  Dtype x_type, out_type;
  bool decode, has_bias;
  std::vector<int8_t> codes;
  std::vector<float> scale, bias;  // int4: [n][groups], int8: [n]
  std::vector<uint8_t> zero;

  int64_t groups() const { return format.bits == 8 ? 1 : group_count(k, format.group); }
  int64_t group(int64_t i) const { return format.bits == 8 ? 0 : i / format.group; }
  double zero_of(int64_t row, int64_t i) const {
    return format.zeros ? zero[row * groups() + group(i)] : 0;
  }
};

Problem random_problem() {
  Problem p;
  p.m = size_up_to(20), p.n = size_up_to(150), p.k = size_up_to(400);
  p.format = {coin() ? 8 : 4, 0, false};
  if (p.format.bits == 4) p.format.group = 32 << uniform(0, 2), p.format.zeros = coin();
  p.x_type = static_cast<Dtype>(uniform(0, 2)), p.out_type = static_cast<Dtype>(uniform(0, 2));
  p.decode = coin(), p.has_bias = coin();
  const bool small = p.format.bits == 4;
  const int64_t low = !small ? -128 : p.format.zeros ? 0 : -8;
  for (int64_t i = 0; i < p.n * p.k; ++i) {
    p.codes.push_back(static_cast<int8_t>(uniform(low, low + (small ? 15 : 255))));
  }
  for (int64_t i = 0; i < p.n * p.groups(); ++i) {
    p.scale.push_back(std::fabs(uniform_float(0.1f)) + 1e-4f);
    p.zero.push_back(static_cast<uint8_t>(uniform(0, 15)));
  }
  for (int64_t i = 0; i < p.n; ++i) p.bias.push_back(uniform_float(3.0f));
  return p;
}

// The weight goes there and back.
void pack(const Problem& p, const WeightKernel& kernel, const Guarded<char>& packed) {
  Problem copy = p;
  const bool small = p.format.bits == 4;
  const PlainWeight w = {copy.codes.data(), small ? copy.scale.data() : nullptr,
                         p.format.zeros ? copy.zero.data() : nullptr};
  weight_header(packed.get(), p.n, p.k, kernel.nr, p.format);
  pack_weight(packed.get(), w, 0, (p.n + kernel.nr - 1) / kernel.nr);
  Problem back = p;
  std::fill(back.codes.begin(), back.codes.end(), 99);
  unpack_weight(packed.get(), {back.codes.data(), small ? back.scale.data() : nullptr,
                               p.format.zeros ? back.zero.data() : nullptr});
  const bool same = back.codes == p.codes && back.scale == p.scale && back.zero == p.zero;
  if (same && weight_problem(packed.get(), packed.count()) == nullptr) return;
  ++failures;
  std::printf("FAIL %s: unpack is not the inverse of pack\n", kernel.name);
}

void check(const Problem& p, const WeightKernel& kernel, const float* x, int64_t ldx,
           const Guarded<char>& out) {
  for (int64_t r = 0; r < p.m; ++r) {
    for (int64_t n = 0; n < p.n; ++n) {
      double sum = 0.0, size = 0.0;
      for (int64_t i = 0; i < p.k; ++i) {
        const double scale = p.scale[n * p.groups() + p.group(i)], zero = p.zero_of(n, i);
        const double code = p.codes[n * p.k + i], value = x[r * ldx + i];
        sum += value * (code - zero) * scale;
        size += std::fabs(value) * (std::fabs(code - zero) + zero) * scale;
      }
      const double want = sum + (p.has_bias ? p.bias[n] : 0.0f);
      const double step = p.out_type == Dtype::bf16  ? 1.0 / 256
                          : p.out_type == Dtype::f16 ? 1.0 / 2048
                                                     : 2 * kUnit;
      // 1e-7: half of fp16's least value.
      const double bound = (p.k + 8) * kUnit * size + step * std::fabs(want) + kUnit * size + 1e-7;
      const double got = to_float(out.get(), p.out_type, r * p.n + n);
      if (std::fabs(got - want) <= bound * (1 + step)) continue;
      ++failures;
      std::printf(
          "FAIL %s: %ld x %ld x %ld, %d bits, group %d, zeros %d, x %d, out %d, decode %d: "
          "%g, not %g (bound %g)\n",
          kernel.name, p.m, p.k, p.n, p.format.bits, p.format.group, p.format.zeros,
          static_cast<int>(p.x_type), static_cast<int>(p.out_type), p.decode, got, want, bound);
      return;
    }
  }
}

void one_case(const WeightKernel& kernel) {
  const Problem p = random_problem();
  const Guarded<char> packed(weight_bytes(p.n, p.k, kernel.nr, p.format), 64);
  pack(p, kernel, packed);

  const int64_t ldx = round_up(p.k, kWeightDepth), width = dtype_bytes(p.x_type);
  const int64_t groups = p.format.zeros ? p.groups() : 0;
  const Guarded<char> given(p.m * p.k * width, width);
  const Guarded<float> x(p.m * ldx), sums(p.m * groups);
  for (int64_t i = 0; i < p.m * p.k; ++i) {
    from_float(uniform_float(2.0f), p.x_type, given.get(), i);
  }
  for (int64_t r = 0; r < p.m; ++r) {
    float* own = groups ? sums.get() + r * groups : nullptr;
    kernel.widen_row(
        {given.get() + r * p.k * width, p.x_type, p.k, x.get() + r * ldx, own, p.format.group});
    for (int64_t i = 0; i < ldx; ++i) {
      const float want = i < p.k ? to_float(given.get(), p.x_type, r * p.k + i) : 0.0f;
      if (x[r * ldx + i] != want) ++failures, std::printf("FAIL %s: widen_row\n", kernel.name);
    }
  }

  const Guarded<float> scale(p.n), bias(p.n);
  for (int64_t i = 0; i < p.n; ++i)
    scale[i] = p.scale[p.format.bits == 8 ? i : 0], bias[i] = p.bias[i];
  const Guarded<char> out(p.m * p.n * dtype_bytes(p.out_type), dtype_bytes(p.out_type));
  Epilogue e = {};
  e.scale_w = p.format.bits == 8 ? scale.get() : nullptr;
  e.bias = p.has_bias ? bias.get() : nullptr;
  e.out_type = p.out_type, e.out = out.get(), e.ld = p.n;
  for (int64_t n0 = 0; n0 < p.n; n0 += kernel.nr) {
    kernel.block({x.get(), ldx, groups ? sums.get() : nullptr, groups,
                  weight_panel(packed.get(), n0), p.k, p.format, static_cast<int>(p.m),
                  static_cast<int>(min64(kernel.nr, p.n - n0)), n0, p.decode, &e});
  }
  check(p, kernel, x.get(), ldx, out);
}

}  // namespace

int main(int argc, char** argv) {
  return run_kernels<WeightKernel>(weight_only_kernels, one_case, failures, argc, argv);
}
