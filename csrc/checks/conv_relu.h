// Argument checks of the float convolution, made before a pointer is touched. The words are those
// of pyops/ops/conv_relu_checks.py.
#pragma once
#include "checks/conv_shape.h"
#include "cpu/conv_relu/rows.h"
#include "cpu/conv_relu/winograd.h"

namespace pyops::checks {

inline cpu::Dtype conv_dtype(const char* op, const char* name, ScalarType type) {
  switch (type) {
    case ScalarType::Float: return cpu::Dtype::f32;
    case ScalarType::BFloat16: return cpu::Dtype::bf16;
    default: STD_TORCH_CHECK(false, op, ": ", name, " must be torch.float32 or torch.bfloat16");
  }
}

inline void conv_weight_shape(const char* op, cpu::Ints shape) {
  bool positive = shape.size() == 4;
  for (const int64_t size : shape) positive = positive && size >= 1 && size <= INT32_MAX;
  STD_TORCH_CHECK(positive, op, ": weight_shape must be 4 positive sizes [OC, C / groups, KH, KW]");
}

inline void conv_groups(const char* op, int64_t oc, int64_t groups) {
  STD_TORCH_CHECK(groups >= 1 && oc % groups == 0, op, ": groups must divide the ", oc,
                  " output channels, but is ", groups);
}

// The sizes of a weight to be packed for so many groups.
inline cpu::Sizes conv_weight(const char* op, const Tensor& weight, int64_t groups) {
  STD_TORCH_CHECK(weight.dim() == 4, op, ": weight must be 4-D [OC, C / groups, KH, KW], but is ",
                  weight.dim(), "-D");
  const cpu::Sizes shape = cpu::sizes_of(weight);
  conv_weight_shape(op, shape);
  conv_groups(op, shape[0], groups);
  return shape;
}

inline void conv_algorithm(const char* op, const cpu::ConvHeader& h) {
  STD_TORCH_CHECK(!h.winograd() || cpu::winograd_takes(h), op,
                  ": Winograd's algorithm takes a float32 weight [OC, C, 3, 3] of 1 group");
}

// The geometry of a call, all of it checked but the packed weight.
inline cpu::ConvShape conv_shape(const char* op, const cpu::Value& x, cpu::Ints weight,
                                 cpu::Ints stride, cpu::Ints padding, cpu::Ints dilation) {
  conv_weight_shape(op, weight);
  cpu::ConvShape s = conv_shape(op, x, weight[2], weight[3], stride, padding, dilation);
  STD_TORCH_CHECK(s.c >= 1 && s.c % weight[1] == 0, op, ": x has ", s.c,
                  " channels, which is no multiple of the weight's ", weight[1]);
  s.oc = weight[0];
  s.groups = s.c / weight[1];
  conv_groups(op, s.oc, s.groups);
  return s;
}

// t: null where there is none.
inline void conv_residual(const char* op, const cpu::Value* t, const cpu::Value& x,
                          const cpu::ConvShape& s) {
  if (t == nullptr) return;
  STD_TORCH_CHECK(t->type == x.type, op, ": residual must have the dtype of x");
  conv_residual_shape(op, *t, s);
}

inline void conv_winograd(const char* op, const cpu::ConvHeader& h, const cpu::ConvShape& s) {
  const bool near =
      cpu::max64(s.stride_h, s.stride_w) == 1 && cpu::max64(s.dilation_h, s.dilation_w) == 1;
  STD_TORCH_CHECK(near || !h.winograd(), op,
                  ": the weight is packed for Winograd's algorithm, which takes stride 1 and "
                  "dilation 1, but stride is [",
                  s.stride_h, ", ", s.stride_w, "] and dilation [", s.dilation_h, ", ",
                  s.dilation_w, "]");
}

// Of the header of a packed weight: its shape and type.
template <class Header>
void packed_conv_shape(const char* op, const Header& h, cpu::Ints shape, cpu::Dtype type) {
  STD_TORCH_CHECK(h.oc == shape[0] && h.cg == shape[1] && h.kh == shape[2] && h.kw == shape[3], op,
                  ": the packed weight is [", h.oc, ", ", h.cg, ", ", h.kh, ", ", h.kw,
                  "], but weight_shape is [", shape[0], ", ", shape[1], ", ", shape[2], ", ",
                  shape[3], "]");
  const auto packed_type = static_cast<cpu::Dtype>(h.type);
  STD_TORCH_CHECK(packed_type == type, op, ": the packed weight is ",
                  packed_type == cpu::Dtype::f32    ? "torch.float32"
                  : packed_type == cpu::Dtype::bf16 ? "torch.bfloat16"
                                                    : "torch.int8",
                  ", which goes with x of the same dtype");
}

// Refuses a weight that `kernel` does not read.
template <class Header>
void packed_layout(const char* op, const Header& h, const cpu::KernelRow& kernel, bool fits) {
  STD_TORCH_CHECK(fits, op, ": the weight is packed as n", h.nr, "k", h.kr, ", but kernel ",
                  kernel.name, " takes n", kernel.nr, "k", kernel.kr, "; pack it again");
}

// The header of a packed weight of that shape and type.
inline const cpu::ConvHeader& packed_conv(const char* op, const Tensor& t, cpu::Ints shape,
                                          cpu::Dtype type) {
  const void* bytes = packed_bytes(op, "conv_relu_pack", t);
  const char* problem = cpu::conv_problem(bytes, t.numel());
  STD_TORCH_CHECK(problem == nullptr, op, ": packed weight: ", problem ? problem : "");
  const cpu::ConvHeader& h = cpu::conv_header(bytes);
  packed_conv_shape(op, h, shape, type);
  return h;
}

}  // namespace pyops::checks
