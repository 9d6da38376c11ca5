// Geometry checks of convolutions and pooling, made before a pointer is touched. The words are
// those of pyops/ops/conv_checks.py.
#pragma once
#include <cmath>

#include "checks/common.h"
#include "cpu/common/conv_shape.h"

namespace pyops::checks {

inline void integers(const char* op, const char* name, cpu::Ints values, size_t count,
                     int64_t least) {
  STD_TORCH_CHECK(values.size() == count, op, ": ", name, " must have ", count,
                  " integers, but has ", values.size());
  for (const int64_t value : values) {
    STD_TORCH_CHECK(value >= least && value <= (1 << 20), op, ": ", name, " must be in [", least,
                    ", 1048576], but ", value, " given");
  }
}

// x [N, C, H, W]; the rest of the shape is that of the window.
inline cpu::ConvShape conv_shape(const char* op, const cpu::Value& x, int64_t kh, int64_t kw,
                                 cpu::Ints stride, cpu::Ints padding, cpu::Ints dilation) {
  STD_TORCH_CHECK(x.dim() == 4, op, ": x must be 4-D [N, C, H, W], but is ", x.dim(), "-D");
  integers(op, "stride", stride, 2, 1);
  integers(op, "padding", padding, 4, 0);
  integers(op, "dilation", dilation, 2, 1);
  cpu::ConvShape s = {};
  s.n = x.size(0);
  s.c = x.size(1);
  s.h = x.size(2);
  s.w = x.size(3);
  s.kh = kh;
  s.kw = kw;
  s.stride_h = stride[0];
  s.stride_w = stride[1];
  s.top = padding[0];
  s.bottom = padding[1];
  s.left = padding[2];
  s.right = padding[3];
  s.dilation_h = dilation[0];
  s.dilation_w = dilation[1];
  s.oh = cpu::conv_positions(s.h, kh, s.stride_h, s.top + s.bottom, s.dilation_h);
  s.ow = cpu::conv_positions(s.w, kw, s.stride_w, s.left + s.right, s.dilation_w);
  STD_TORCH_CHECK(s.oh > 0 && s.ow > 0, op, ": a window of ", kh, " x ", kw,
                  " does not fit into the padded input");
  s.groups = 1;
  return s;
}

inline void conv_activation(const char* op, int64_t activation, double low, double high,
                            const OptionalTensor& slope, int64_t oc) {
  code(op, "activation", activation, cpu::kConvActivations);
  const auto kind = static_cast<cpu::Activation>(activation);
  if (kind == cpu::Activation::clamp) {
    STD_TORCH_CHECK(low <= high, op, ": clamp needs low <= high, but they are ", low, " and ",
                    high);
    constexpr double kMost = 3.4028234663852886e38;
    const auto is_float = [](double v) { return std::isinf(v) || std::fabs(v) <= kMost; };
    STD_TORCH_CHECK(is_float(low) && is_float(high), op,
                    ": clamp needs bounds within float32, but they are ", low, " and ", high);
  }
  STD_TORCH_CHECK(slope.has_value() == (kind == cpu::Activation::leaky_relu), op,
                  ": slope goes with the activation leaky_relu");
  if (!slope.has_value()) return;
  cpu_tensor(op, "slope", *slope, ScalarType::Float, "torch.float32");
  STD_TORCH_CHECK(slope->dim() == 1 && (slope->size(0) == 1 || slope->size(0) == oc), op,
                  ": slope must be [1] or [", oc, "]");
}

inline void conv_residual_shape(const char* op, const cpu::Value& t, const cpu::ConvShape& s) {
  const bool same = t.dim() == 4 && t.size(0) == s.n && t.size(1) == s.oc && t.size(2) == s.oh &&
                    t.size(3) == s.ow;
  STD_TORCH_CHECK(same, op, ": residual must be [", s.n, ", ", s.oc, ", ", s.oh, ", ", s.ow,
                  "] like the output");
}

}  // namespace pyops::checks
