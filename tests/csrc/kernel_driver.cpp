// Runs every kernel of int8_gemm that this CPU has on random problems, without torch or Python, so
// that it can run under sanitizers and on emulated CPUs.
//
//   kernel_driver [--cases N] [--seed N] [--expect generic,avx2] [--any-cpu]
//
// Each result is compared with a plain loop over int64, and bit for bit with the generic kernel.
// Buffers end (or begin) at an unmapped page. --expect fails unless exactly these levels are
// detected; --any-cpu runs all rows without asking, which must end in SIGILL where one is lacking.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/common/direct_codes.h"
#include "cpu/int8_gemm/int8_gemm.h"
#include "cpu/int8_gemm/pack.h"
#include "guarded.h"
#include "norms.h"
#include "packed.h"
#include "problem.h"
#include "taps_strip.h"

using namespace pyops::cpu;

namespace {

int failures = 0;

template <class T>
void copy(const std::vector<T>& from, const Guarded<T>& to) {
  std::memcpy(to.get(), from.data(), from.size() * sizeof(T));
}

// The output buffer after one call, sentinel bytes included.
std::vector<char> run(const Int8GemmKernel& kernel, const Problem& p, bool damaged = false,
                      const Strip* strip = nullptr) {
  const Codes form = kernel.form_of(p.is_signed);
  const int64_t width = code_bytes(form), k_padded = round_up(p.k, kDepthStep);
  // A panel of the problem may lie inside a wider one of this kernel: pack its columns alone.
  const int64_t stored = min64(p.panel, p.n - p.n0);
  const Packed made(kernel, p.w.data() + p.n0 * p.k, stored, p.k);
  if (damaged) damage(made);
  const Guarded<char>& packed = made.bytes;
  Guarded<char> a(p.rows * k_padded * width, 64);
  prepare_codes(p.a.data(), p.is_signed, p.k, p.rows, p.k, form, a.get(), k_padded);

  Guarded<char> places(strip ? strip->places * p.k : 0, 64);
  if (strip) strip->write(a.get(), p.rows, k_padded, places.get());

  Guarded<int32_t> w_sum(p.n), zero_a(p.rows);
  Guarded<float> scale_a(p.rows), scale_w(p.n), bias(p.n);
  Guarded<char> residual(p.residual.size(), dtype_bytes(p.residual_type));
  Guarded<char> out(p.out_count() * dtype_bytes(p.out_type), dtype_bytes(p.out_type));
  std::memcpy(w_sum.get() + p.n0, packed_sums(packed.get()), 4 * stored);
  copy(p.zero_a, zero_a), copy(p.scale_a, scale_a), copy(p.scale_w, scale_w), copy(p.bias, bias);
  copy(p.residual, residual);
  std::memset(out.get(), 0x5a, out.count());

  Epilogue e = {};
  e.w_sum = w_sum.get();
  e.scale_a = scale_a.get(), e.scale_a_stride = p.per_row;
  e.zero_a = p.has_zero ? zero_a.get() : nullptr, e.zero_a_stride = p.per_row;
  e.zero_shift = shift_of(form, p.is_signed);
  e.scale_w = scale_w.get(), e.bias = p.has_bias ? bias.get() : nullptr;
  e.residual = p.has_residual ? residual.get() : nullptr, e.residual_type = p.residual_type;
  e.residual_scale = p.residual_scale, e.residual_zero = p.residual_zero;
  e.activation = p.activation, e.out_type = p.out_type, e.out = out.get(), e.ld = p.ld;
  e.out_inverse_scale = p.out_inverse_scale, e.out_zero = p.out_zero;
  find_direct_codes(&e, p.n, 255.0 * 128.0 * static_cast<double>(p.k));

  for (int64_t n = 0; n < p.cols; n += kernel.nr) {
    Int8GemmBlock block = {};
    block.a = a.get(), block.codes = form, block.lda_bytes = k_padded * width;
    block.w = packed_panel(packed.get(), n);
    block.stored_cols = static_cast<int>(min64(kernel.nr, stored - n));
    block.k = packed_depth(p.k, kernel.kr);
    block.rows = static_cast<int>(p.rows);
    block.cols = static_cast<int>(min64(kernel.nr, p.cols - n));
    block.n0 = p.n0 + n, block.epilogue = &e;
    block.first = n == 0, block.last = n + kernel.nr >= p.cols;
    if (kernel.cut) add_cut(&block, packed_cut(packed.get()), n / kernel.nr, p.k, n);
    if (strip) {
      block.a = places.get(), block.lda_bytes = strip->taps.depth, block.taps = &strip->taps;
    }
    kernel.block(block);
  }
  return {out.get(), out.get() + out.count()};
}

// The same by the formula; activations other than relu are left out (0 stands for them).
std::vector<char> reference(const Problem& p) {
  std::vector<char> out(p.out_count() * dtype_bytes(p.out_type), 0x5a);
  for (int64_t m = 0; m < p.rows; ++m) {
    for (int64_t n = p.n0; n < p.n0 + p.cols; ++n) {
      const int64_t r = p.per_row ? m : 0, at = m * p.ld + n, zero = p.has_zero ? p.zero_a[r] : 0;
      int64_t acc = 0;
      for (int64_t i = 0; i < p.k; ++i) acc += (p.code(m, i) - zero) * p.w[n * p.k + i];
      if (p.out_type == Dtype::s32) {
        const int32_t exact = static_cast<int32_t>(acc);
        std::memcpy(&out[4 * at], &exact, 4);
        continue;
      }
      float v = static_cast<float>(acc) * p.scale_a[r];
      v = v * p.scale_w[n];
      if (p.has_bias) v = v + p.bias[n];
      if (p.has_residual && p.folded) {
        const int32_t q = static_cast<uint8_t>(p.residual[at]) - p.residual_zero;
        v = v + static_cast<float>(q) * p.residual_scale;
      } else if (p.has_residual) {
        v = v + to_float(p.residual.data(), p.residual_type, at);
      }
      if (p.activation == Activation::relu) v = v > 0.0f ? v : 0.0f;
      if (p.out_type == Dtype::s8 || p.out_type == Dtype::u8) {
        const int low = p.out_type == Dtype::u8 ? 0 : -128;
        const float scaled =
            std::nearbyint(v * p.out_inverse_scale) + static_cast<float>(p.out_zero);
        const float bounded = std::fmin(std::fmax(scaled, low), low + 255);
        out[at] = static_cast<char>(static_cast<int>(bounded));
      } else {
        from_float(v, p.out_type, out.data(), at);
      }
    }
  }
  return out;
}

void fail(const char* what, const char* kernel, const Problem& p, int64_t at) {
  ++failures;
  std::printf(
      "FAIL %s: %s, rows %ld cols %ld n %ld n0 %ld k %ld out %d act %d signed %d, byte %ld\n",
      kernel, what, p.rows, p.cols, p.n, p.n0, p.k, static_cast<int>(p.out_type),
      static_cast<int>(p.activation), p.is_signed, at);
}

void compare(const char* what, const char* kernel, const Problem& p, const std::vector<char>& x,
             const std::vector<char>& y) {
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] != y[i]) return fail(what, kernel, p, static_cast<int64_t>(i));
  }
}

void gemm_case(const Int8GemmKernel& kernel, const Int8GemmKernel& generic) {
  const Problem p = random_problem(kernel.nr);
  const std::vector<char> out = run(kernel, p);
  compare("differs from the generic kernel", kernel.name, p, out, run(generic, p));
  const bool exact = p.activation == Activation::none || p.activation == Activation::relu;
  if (exact || p.out_type == Dtype::s32) {
    compare("differs from the formula", kernel.name, p, out, reference(p));
  }
}

void taps_case(const Int8GemmKernel& kernel, const Int8GemmKernel& generic) {
  if (kernel.tap_depth == 0) return;
  // Of 48 codes and more, rows of a tile take turns.
  const int64_t steps = coin() ? uniform(1, 3) : uniform(11, 16);
  const int64_t count = uniform(1, 9), depth = kernel.tap_depth * steps;
  const Problem p = random_problem(kernel.nr, count * depth);
  const Strip strip(p.rows, count, depth);
  compare("differs over taps", kernel.name, p, run(kernel, p, false, &strip), run(generic, p));
}

void pack_case(const Int8GemmKernel& kernel) {
  const Problem p = random_problem(kernel.nr);
  const Packed packed(kernel, p.w.data(), p.n, p.k);
  std::vector<int8_t> w(p.w.size());
  unpack(packed.bytes.get(), w.data());
  if (w != p.w) fail("unpack is not the inverse of pack", kernel.name, p, 0);
  if (packed_problem(packed.bytes.get(), packed.bytes.count())) {
    fail("refuses what it packed", kernel.name, p, 0);
  }
  if (kernel.cut) run(kernel, p, true);  // what comes out does not matter, where it reads does
}

// The codes, scale and zero point that `row` must produce, by the formula in int8_gemm.h.
void quantize_reference(const QuantizeRow& row, std::vector<int32_t>* codes, float* scale,
                        int32_t* zero_point) {
  float low = 0.0f, high = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < row.k; ++i) {
    const float x = to_float(row.x, row.x_type, i);
    finite = finite && std::isfinite(x);
    low = std::fmin(low, x), high = std::fmax(high, x);
  }
  float s = row.symmetric ? std::fmax(high, -low) / 127.0f : high / 255.0f - low / 255.0f;
  s = low == 0.0f && high == 0.0f ? 1.0f : std::fmax(s, 1.17549435e-38f);
  const float inverse = 1.0f / s;
  // q of uint8, so 128 is the zero of symmetric codes; then the form that the kernel wants.
  int32_t zero = 128;
  if (!row.symmetric) zero = finite ? std::fmin(255.0f, std::nearbyint(-low * inverse)) : 0;
  const bool shifted = row.codes == Codes::s8 || (row.codes == Codes::s16 && row.symmetric);
  const int32_t shift = shifted ? -128 : 0;
  for (int64_t i = 0; i < row.k_padded; ++i) {
    const float x = i < row.k && finite ? to_float(row.x, row.x_type, i) : 0.0f;
    const float q = std::nearbyint(x * inverse) + static_cast<float>(zero);
    const float bounded = std::fmin(std::fmax(q, row.symmetric ? 1 : 0), 255);
    codes->push_back(i < row.k ? static_cast<int32_t>(bounded) + shift : 0);
  }
  *scale = finite ? s : NAN;
  *zero_point = zero + shift;
}

void quantize_case(const Int8GemmKernel& kernel) {
  QuantizeRow row = {};
  row.x_type = static_cast<Dtype>(uniform(0, 2));
  row.k = size_up_to(400), row.k_padded = round_up(row.k, kDepthStep);
  row.symmetric = coin(), row.codes = kernel.codes;
  const int64_t kind = uniform(0, 11);  // 0: zeros, 1: a NaN, 2: an infinity, 3: denormals
  const float bound = kind == 0 ? 0.0f : kind == 3 ? 1e-40f : std::ldexp(1.0f, uniform(-12, 12));
  Guarded<char> x(row.k * dtype_bytes(row.x_type), dtype_bytes(row.x_type));
  const float offset = coin() ? bound : 0.0f;
  for (int64_t i = 0; i < row.k; ++i)
    from_float(uniform_float(bound) + offset, row.x_type, x.get(), i);
  if (kind == 1) from_float(NAN, row.x_type, x.get(), uniform(0, row.k - 1));
  if (kind == 2) from_float(-INFINITY, row.x_type, x.get(), uniform(0, row.k - 1));
  const int64_t width = code_bytes(row.codes);
  Guarded<char> q(row.k_padded * width, 64);
  std::memset(q.get(), 0x5a, q.count());
  float scale = 0.0f, want_scale;
  int32_t zero = -1, want_zero;
  row.x = x.get(), row.q = q.get(), row.scale = &scale, row.zero_point = &zero;
  kernel.quantize_row(row);

  std::vector<int32_t> want;
  quantize_reference(row, &want, &want_scale, &want_zero);
  int64_t wrong = 0;
  for (int64_t i = 0; i < row.k_padded; ++i) {
    bool agree = true;
    wrong += read_code(row.codes, q.get(), i, &agree) != want[i] || !agree;
  }
  const bool same_scale = std::isnan(want_scale) ? std::isnan(scale) : scale == want_scale;
  if (wrong || !same_scale || zero != want_zero) {
    ++failures;
    std::printf(
        "FAIL %s: quantize_row type %d k %ld symmetric %d kind %ld: %ld codes differ, "
        "scale %a want %a, zero %d want %d\n",
        kernel.name, static_cast<int>(row.x_type), row.k, row.symmetric, kind, wrong, scale,
        want_scale, zero, want_zero);
  }
}

void norm_case(const Int8GemmKernel& kernel, const Int8GemmKernel& generic) {
  if (norm_as_by_formula(kernel, generic)) return;
  ++failures;
  std::printf("FAIL %s: norm_row\n", kernel.name);
}

std::string detected() {
  std::string names;
  for (int i = 0; i < static_cast<int>(Isa::count); ++i) {
    if (isa_detected() & bit(static_cast<Isa>(i))) {
      names += (names.empty() ? "" : ",") + std::string(isa_name(static_cast<Isa>(i)));
    }
  }
  return names;
}

}  // namespace

int main(int argc, char** argv) {
  int64_t cases = 200, seed = 1;
  bool any_cpu = false;
  std::string expect;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--any-cpu")
      any_cpu = true;
    else if (flag == "--cases")
      cases = std::atoll(argv[++i]);
    else if (flag == "--seed")
      seed = std::atoll(argv[++i]);
    else if (flag == "--expect")
      expect = argv[++i];
  }
  std::printf("levels: %s\n", detected().c_str());
  if (!expect.empty() && expect != detected()) {
    std::printf("FAIL: expected the levels %s\n", expect.c_str());
    return 1;
  }
  const auto kernel_at = [](int i) -> const Int8GemmKernel& {
    return static_cast<const Int8GemmKernel&>(int8_gemm_kernels.row(i));
  };
  const Int8GemmKernel& generic = kernel_at(int8_gemm_kernels.count() - 1);
  for (int i = 0; i < int8_gemm_kernels.count(); ++i) {
    const Int8GemmKernel& kernel = kernel_at(i);
    if (!any_cpu && !int8_gemm_kernels.available(i)) continue;
    rng.seed(static_cast<uint64_t>(seed));
    for (int64_t c = 0; c < cases; ++c) {
      gemm_case(kernel, generic), quantize_case(kernel), pack_case(kernel);
      norm_case(kernel, generic), taps_case(kernel, generic);
    }
    std::printf("ran %s\n", kernel.name);
    std::fflush(stdout);
  }
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
