// Argument checks of the float convolution, made before a pointer is touched. The words are those
// of pyops/ops/conv_relu_checks.py.
#pragma once
#include <vector>

#include "checks/common.h"
#include "cpu/conv_relu/rows.h"

namespace pyops::checks {

constexpr int64_t kMostConvSize = INT32_MAX;

inline cpu::Dtype conv_dtype(const char* op, const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.is_cpu(), op, ": ", name, " must be on the CPU");
  switch (t.scalar_type()) {
    case ScalarType::Float: return cpu::Dtype::f32;
    case ScalarType::BFloat16: return cpu::Dtype::bf16;
    default: STD_TORCH_CHECK(false, op, ": ", name, " must be torch.float32 or torch.bfloat16");
  }
}

inline void conv_weight_shape(const char* op, const std::vector<int64_t>& shape) {
  bool positive = shape.size() == 4;
  for (int64_t size : shape) positive = positive && size >= 1 && size <= kMostConvSize;
  STD_TORCH_CHECK(positive, op, ": weight_shape must be 4 positive sizes [OC, C / groups, KH, KW]");
}

inline void conv_groups(const char* op, int64_t oc, int64_t groups) {
  STD_TORCH_CHECK(groups >= 1 && oc % groups == 0, op, ": groups must divide the ", oc,
                  " output channels, but is ", groups);
}

inline void conv_numbers(const char* op, const char* name, const std::vector<int64_t>& v,
                         size_t count, int64_t least) {
  bool good = v.size() == count;
  for (int64_t number : v) good = good && number >= least && number <= kMostConvSize;
  STD_TORCH_CHECK(good, op, ": ", name, " must be ", count, " integers of at least ", least);
}

// The geometry of a call, all of it checked but the packed weight.
inline cpu::ConvShape conv_shape(const char* op, const Tensor& x,
                                 const std::vector<int64_t>& weight,
                                 const std::vector<int64_t>& stride,
                                 const std::vector<int64_t>& padding,
                                 const std::vector<int64_t>& dilation) {
  conv_weight_shape(op, weight);
  conv_numbers(op, "stride", stride, 2, 1);
  conv_numbers(op, "padding", padding, 4, 0);
  conv_numbers(op, "dilation", dilation, 2, 1);
  STD_TORCH_CHECK(x.dim() == 4, op, ": x must be 4-D [N, C, H, W], but is ", x.dim(), "-D");
  const int64_t c = x.size(1), oc = weight[0], cg = weight[1];
  STD_TORCH_CHECK(c >= 1 && c % cg == 0, op, ": x has ", c,
                  " channels, which is no multiple of the weight's ", cg);
  conv_groups(op, oc, c / cg);
  const int64_t h = x.size(2), w = x.size(3);
  const int64_t oh =
      cpu::conv_positions(h, weight[2], stride[0], padding[0] + padding[1], dilation[0]);
  const int64_t ow =
      cpu::conv_positions(w, weight[3], stride[1], padding[2] + padding[3], dilation[1]);
  STD_TORCH_CHECK(oh >= 1 && ow >= 1, op, ": a kernel of ", weight[2], " x ", weight[3],
                  " does not fit the input of ", h, " x ", w);
  return {x.size(0),   h,           w,          c,          weight[2],  weight[3],
          stride[0],   stride[1],   padding[0], padding[1], padding[2], padding[3],
          dilation[0], dilation[1], oh,         ow,         oc,         c / cg};
}

inline void conv_residual(const char* op, const OptionalTensor& t, const Tensor& x,
                          const cpu::ConvShape& s) {
  if (!t.has_value()) return;
  cpu_tensor(op, "residual", *t);
  STD_TORCH_CHECK(t->scalar_type() == x.scalar_type(), op, ": residual must have the dtype of x");
  const bool same = t->dim() == 4 && t->size(0) == s.n && t->size(1) == s.oc &&
                    t->size(2) == s.oh && t->size(3) == s.ow;
  STD_TORCH_CHECK(same, op, ": residual must have the shape of the output");
}

inline void conv_slope(const char* op, const OptionalTensor& t, int64_t activation, int64_t oc) {
  const bool wanted = static_cast<cpu::Activation>(activation) == cpu::Activation::leaky_relu;
  STD_TORCH_CHECK(t.has_value() == wanted, op,
                  ": slope goes with the activation 'leaky_relu', and with no other");
  if (!wanted) return;
  cpu_tensor(op, "slope", *t, ScalarType::Float, "torch.float32");
  STD_TORCH_CHECK(t->dim() == 1 && (t->size(0) == 1 || t->size(0) == oc), op,
                  ": slope must be [1] or [", oc, "]");
}

// The header of a packed weight of that shape and type.
inline const cpu::ConvHeader& packed_conv(const char* op, const Tensor& t,
                                          const std::vector<int64_t>& shape, cpu::Dtype type) {
  const void* bytes = packed_bytes(op, "conv_relu_pack", t);
  const char* problem = cpu::conv_problem(bytes, t.numel());
  STD_TORCH_CHECK(problem == nullptr, op, ": packed weight: ", problem ? problem : "");
  const cpu::ConvHeader& h = cpu::conv_header(bytes);
  STD_TORCH_CHECK(h.oc == shape[0] && h.cg == shape[1] && h.kh == shape[2] && h.kw == shape[3], op,
                  ": the packed weight is [", h.oc, ", ", h.cg, ", ", h.kh, ", ", h.kw,
                  "], but weight_shape is [", shape[0], ", ", shape[1], ", ", shape[2], ", ",
                  shape[3], "]");
  const auto packed_type = static_cast<cpu::Dtype>(h.type);
  STD_TORCH_CHECK(packed_type == type, op, ": the packed weight is ",
                  packed_type == cpu::Dtype::f32 ? "torch.float32" : "torch.bfloat16",
                  ", which goes with x of the same dtype");
  return h;
}

}  // namespace pyops::checks
