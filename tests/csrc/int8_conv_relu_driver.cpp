// Runs every depthwise kernel that this CPU has on random problems, without torch or Python, so
// that it can run under sanitizers and on emulated CPUs.
//
//   int8_conv_relu_driver [--cases N] [--seed N]
//
// Sums are compared with plain ones, outputs with the epilogue's formula step by step; buffers end
// (or begin) at an unmapped page.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "cpu/common/direct_codes.h"
#include "cpu/int8_conv_relu/depthwise.h"
#include "guarded.h"
#include "run_kernels.h"

using namespace pyops::cpu;

namespace {

int failures = 0;

struct Problem {
  ConvShape s;
  bool x_signed;
  int32_t zero;
  Epilogue e;
};

// One axis: sizes around the kernel's, so that windows larger than the image come up.
void random_axis(int64_t* size, int64_t* k, int64_t* stride, int64_t* dilation, int64_t* before,
                 int64_t* after, int64_t* positions) {
  *size = coin() ? uniform(1, 9) : uniform(1, 40);
  *k = coin() ? 3 : uniform(1, 9), *stride = uniform(1, 3), *dilation = coin() ? 1 : uniform(1, 7);
  const int64_t window = *dilation * (*k - 1) + 1;
  *before = uniform(0, window), *after = uniform(0, window);
  if (*size + *before + *after < window) *after = window - *size - *before;
  *positions = conv_positions(*size, *k, *stride, *before + *after, *dilation);
}

Problem random_problem() {
  Problem p = {};
  ConvShape& s = p.s;
  random_axis(&s.h, &s.kh, &s.stride_h, &s.dilation_h, &s.top, &s.bottom, &s.oh);
  random_axis(&s.w, &s.kw, &s.stride_w, &s.dilation_w, &s.left, &s.right, &s.ow);
  s.n = uniform(1, 2), s.c = s.oc = s.groups = size_up_to(coin() ? 70 : 200);
  p.x_signed = coin();
  p.zero = static_cast<int32_t>(uniform(0, 255)) - (p.x_signed ? 128 : 0);
  Epilogue& e = p.e;
  e.activation = static_cast<Activation>(coin() ? uniform(0, 1) : 5);
  e.low = -uniform_float(1.0f), e.high = std::fabs(uniform_float(6.0f)) + 1.0f;
  e.out_type = static_cast<Dtype>(coin() ? 4 : uniform(0, 5));
  if (e.out_type == Dtype::s32) e.activation = Activation::none;
  e.out_inverse_scale = uniform(1, 400) * 0.1f;
  e.out_zero = static_cast<int32_t>(uniform(0, 255)) - (e.out_type == Dtype::s8 ? 128 : 0);
  e.residual_type = Dtype::f32;
  e.ld = s.c;
  return p;
}

// What nets have most: windows of 3 x 3 from uint8 codes to codes, of images of any width.
Problem common_problem() {
  Problem p = random_problem();
  ConvShape& s = p.s;
  s.kh = s.kw = 3, s.dilation_h = s.dilation_w = 1;
  s.stride_h = uniform(1, 2), s.stride_w = uniform(1, 2);
  s.top = uniform(0, 4), s.bottom = uniform(0, 4), s.left = uniform(0, 4), s.right = uniform(0, 4);
  s.h += 2, s.w += 2;  // a window fits without padding
  s.oh = conv_positions(s.h, s.kh, s.stride_h, s.top + s.bottom, 1);
  s.ow = conv_positions(s.w, s.kw, s.stride_w, s.left + s.right, 1);
  if (p.x_signed) p.zero += 128;
  p.x_signed = false;
  if (p.e.out_type != Dtype::u8) p.e.out_type = Dtype::s8;
  p.e.out_zero = static_cast<int32_t>(uniform(0, 255)) - (p.e.out_type == Dtype::s8 ? 128 : 0);
  return p;
}

int32_t sum_at(const Problem& p, const uint8_t* x, const int8_t* w, int64_t pixel, int64_t c) {
  const ConvShape& s = p.s;
  const int64_t n = pixel / (s.oh * s.ow), oy = pixel / s.ow % s.oh, ox = pixel % s.ow;
  int32_t sum = 0;
  for (int64_t ky = 0; ky < s.kh; ++ky) {
    for (int64_t kx = 0; kx < s.kw; ++kx) {
      const int64_t iy = oy * s.stride_h - s.top + ky * s.dilation_h;
      const int64_t ix = ox * s.stride_w - s.left + kx * s.dilation_w;
      if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w) continue;
      const uint8_t q = x[((n * s.h + iy) * s.w + ix) * s.c + c];
      const int32_t code = p.x_signed ? static_cast<int8_t>(q) : q;
      sum += (code - p.zero) * w[(c * s.kh + ky) * s.kw + kx];
    }
  }
  return sum;
}

double expected(const Epilogue& e, int32_t sum, int64_t m, int64_t c) {
  if (e.out_type == Dtype::s32) return sum;
  float v = static_cast<float>(sum);
  if (e.scale_a) v = v * *e.scale_a;
  if (e.scale_w) v = v * e.scale_w[c];
  if (e.bias) v = v + e.bias[c];
  if (e.residual) v = v + static_cast<const float*>(e.residual)[m * e.ld + c];
  if (e.activation == Activation::relu) v = 0.0f > v ? 0.0f : v;  // NaN stays
  if (e.activation == Activation::clamp) v = std::min(std::max(v, e.low), e.high);
  if (e.out_type == Dtype::bf16) return bf16_to_float(float_to_bf16(v));
  if (e.out_type == Dtype::f16) return f16_to_float(float_to_f16(v));
  if (e.out_type == Dtype::f32) return v;
  const float low = e.out_type == Dtype::u8 ? 0.0f : -128.0f, zero = static_cast<float>(e.out_zero);
  float t = v * e.out_inverse_scale;
  t = std::isnan(t) ? low - zero : std::min(std::max(t, low - zero), low + 255.0f - zero);
  return round_to_even(t) + e.out_zero;
}

double output_at(const Epilogue& e, int64_t i) {
  switch (e.out_type) {
    case Dtype::u8: return static_cast<const uint8_t*>(e.out)[i];
    case Dtype::s8: return static_cast<const int8_t*>(e.out)[i];
    case Dtype::s32: return static_cast<const int32_t*>(e.out)[i];
    default: return to_float(e.out, e.out_type, i);
  }
}

void check(const Problem& p, const char* name, const uint8_t* x, const int8_t* w) {
  for (int64_t m = 0; m < p.s.pixels(); ++m) {
    for (int64_t c = 0; c < p.s.c; ++c) {
      const double want = expected(p.e, sum_at(p, x, w, m, c), m, c);
      const double got = output_at(p.e, m * p.e.ld + c);
      if (got == want || (std::isnan(got) && std::isnan(want))) continue;
      ++failures;
      const ConvShape& s = p.s;
      std::printf(
          "FAIL %s: %ld x %ld x %ld x %ld, window %ld x %ld, stride %ld %ld, dilation %ld %ld, "
          "padding %ld %ld %ld %ld, signed %d, type %d, activation %d: pixel %ld, channel %ld: %g, "
          "not %g\n",
          name, s.n, s.h, s.w, s.c, s.kh, s.kw, s.stride_h, s.stride_w, s.dilation_h, s.dilation_w,
          s.top, s.bottom, s.left, s.right, p.x_signed, static_cast<int>(p.e.out_type),
          static_cast<int>(p.e.activation), m, c, got, want);
      return;
    }
  }
}

void one_case(const Int8ConvReluKernel& kernel) {
  Problem p = coin() ? random_problem() : common_problem();
  const ConvShape& s = p.s;
  const int64_t taps = s.kh * s.kw, outputs = s.pixels() * s.c;
  const Guarded<uint8_t> x(s.n * s.h * s.w * s.c);
  const Guarded<int8_t> w(s.c * taps), back(s.c * taps);
  const bool extreme = uniform(0, 9) == 0;  // all of one code: the largest sums
  for (int64_t i = 0; i < x.count(); ++i) x[i] = static_cast<uint8_t>(extreme ? 255 : rng());
  for (int64_t i = 0; i < w.count(); ++i) w[i] = static_cast<int8_t>(extreme ? -128 : rng());
  const Guarded<char> body(depthwise_bytes(s.c, taps), 64);
  depthwise_pack(w.get(), s.c, taps, body.get());
  depthwise_unpack(body.get(), s.c, taps, back.get());
  if (std::memcmp(w.get(), back.get(), static_cast<size_t>(w.count())) != 0) {
    ++failures, std::printf("FAIL %s: unpack is not the inverse of pack\n", kernel.name);
  }
  const Guarded<float> scale_a(1), scale_w(s.c), bias(s.c), residual(outputs);
  scale_a[0] = 0.02f;
  for (int64_t i = 0; i < s.c; ++i) {
    scale_w[i] = uniform_float(0.01f), bias[i] = uniform_float(2.0f);
    if (uniform(0, 999) == 0) bias[i] = coin() ? NAN : INFINITY;
  }
  for (int64_t i = 0; i < outputs; ++i) residual[i] = uniform_float(2.0f);
  const int64_t width = dtype_bytes(p.e.out_type);
  const Guarded<char> out(outputs * width, width);
  p.e.scale_a = scale_a.get();
  const bool sums = p.e.out_type == Dtype::s32;
  p.e.scale_w = coin() ? scale_w.get() : nullptr;
  p.e.bias = coin() && !sums ? bias.get() : nullptr;
  p.e.residual = uniform(0, 3) == 0 && !sums ? residual.get() : nullptr;
  p.e.out = out.get();
  if (uniform(0, 2) == 0) {  // with the scales folded
    scale_a[0] = p.e.out_inverse_scale = 1.0f;
    for (int64_t i = 0; i < s.c; ++i) scale_w[i] *= 4.0f, bias[i] *= 50.0f;
  }
  find_direct_codes(&p.e, s.c, 255.0 * 128.0 * static_cast<double>(s.kh * s.kw));
  const DepthwiseCall call(kernel, s, x.get(), p.x_signed, p.zero, body.get(), p.e, uniform(1, 5));
  for (int64_t i = 0; i < call.parts(); ++i) {
    const Guarded<char> scratch(call.scratch_bytes(), 64);
    std::memset(scratch.get(), 0x7f, static_cast<size_t>(call.scratch_bytes()));
    call.run(i, scratch.get());
  }
  check(p, kernel.name, x.get(), w.get());
}

}  // namespace

int main(int argc, char** argv) {
  return run_kernels<Int8ConvReluKernel>(int8_conv_relu_kernels, one_case, failures, argc, argv);
}
