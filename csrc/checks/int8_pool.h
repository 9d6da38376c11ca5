// Argument checks of the ops on codes, made before a pointer is touched. The words are those of
// pyops/ops/int8_pool_checks.py, which checks with friendlier exception types once these have
// refused.
#pragma once
#include "checks/common.h"
#include "cpu/int8_pool/int8_pool.h"

namespace pyops::checks {

inline cpu::Dtype code_dtype(const char* op, const char* name, ScalarType type) {
  switch (type) {
    case ScalarType::Char: return cpu::Dtype::s8;
    case ScalarType::Byte: return cpu::Dtype::u8;
    default: STD_TORCH_CHECK(false, op, ": ", name, " must be torch.uint8 or torch.int8");
  }
}

inline void code_scale(const char* op, const char* name, cpu::Dtype type, double value,
                       const char* zero_name, int64_t zero) {
  scale(op, name, value);
  zero_point(op, zero_name, zero, type);
}

inline cpu::Dtype code_output(const char* op, int64_t out_dtype, double out_scale, int64_t zero) {
  code(op, "out_dtype", out_dtype, 5);
  const auto type = static_cast<cpu::Dtype>(out_dtype);
  if (type == cpu::Dtype::s8 || type == cpu::Dtype::u8) {
    code_scale(op, "out_scale", type, out_scale, "out_zero_point", zero);
  } else {
    STD_TORCH_CHECK(out_scale == 1.0 && zero == 0, op,
                    ": out_scale and out_zero_point are for int8 and uint8 outputs");
  }
  return type;
}

inline void code_image(const char* op, const cpu::Value& x) {
  STD_TORCH_CHECK(x.dim() == 4, op, ": x must be 4-D [N, C, H, W], but is ", x.dim(), "-D");
}

inline void pool_sizes(const char* op, const char* name, cpu::Ints sizes, size_t count,
                       int64_t least) {
  bool right = sizes.size() == count;
  for (const int64_t size : sizes) right = right && size >= least && size < (int64_t{1} << 31);
  STD_TORCH_CHECK(right, op, ": ", name, " must be ", count, " integers of at least ", least);
}

// As torch: no window may begin more than half of it before the image.
inline void pool_padding(const char* op, cpu::Ints padding, cpu::Ints kernel, cpu::Ints dilation) {
  for (size_t i = 0; i < 4; ++i) {
    const int64_t size = dilation[i / 2] * (kernel[i / 2] - 1) + 1;
    STD_TORCH_CHECK(padding[i] <= size / 2, op, ": padding may be at most half the window, ",
                    size / 2, ", but is ", padding[i]);
  }
}

// padding: of all four sides. divisor: 0, or what every window is divided by.
inline void pool_windows(const char* op, cpu::Ints kernel, cpu::Ints stride, cpu::Ints padding,
                         cpu::Ints dilation, int64_t divisor) {
  pool_sizes(op, "kernel", kernel, 2, 1);
  pool_sizes(op, "stride", stride, 2, 1);
  pool_sizes(op, "padding", padding, 4, 0);
  pool_sizes(op, "dilation", dilation, 2, 1);
  pool_padding(op, padding, kernel, dilation);
  STD_TORCH_CHECK(divisor >= 0, op, ": divisor_override must be at least 0, but is ", divisor);
}

inline void pool_output(const char* op, int64_t oh, int64_t ow) {
  STD_TORCH_CHECK(oh >= 1 && ow >= 1, op, ": the window is larger than the padded image");
}

inline void pool_taps(const char* op, int64_t taps) {
  STD_TORCH_CHECK(taps <= cpu::kMostTaps, op, ": a window has ", taps, " positions, but at most ",
                  cpu::kMostTaps, " are exact in int32");
}

}  // namespace pyops::checks
