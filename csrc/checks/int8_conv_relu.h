// Argument checks of int8 convolutions, made before a pointer is touched. The words are those of
// pyops/ops/conv_checks.py.
#pragma once
#include "checks/conv_shape.h"
#include "checks/int8_gemm.h"
#include "cpu/int8_conv_relu/pack.h"

namespace pyops::checks {

inline const cpu::Int8ConvHeader& packed_int8_conv(const char* op, const Tensor& t) {
  const void* bytes = packed_bytes(op, "int8_conv_pack", t);
  const char* problem = cpu::int8_conv_problem(bytes, t.numel());
  STD_TORCH_CHECK(problem == nullptr, op, ": packed weight: ", problem ? problem : "");
  return cpu::int8_conv_header(bytes);
}

// The shape that the call is for, and the channels of its input.
inline void int8_conv_packed_shape(const char* op, const cpu::Int8ConvHeader& h, cpu::Ints shape,
                                   const cpu::Value& x) {
  STD_TORCH_CHECK(shape.size() == 4, op, ": weight_shape must be [OC, C / groups, KH, KW]");
  STD_TORCH_CHECK(h.oc == shape[0] && h.c == shape[1] && h.kh == shape[2] && h.kw == shape[3], op,
                  ": the packed weight is [", h.oc, ", ", h.c, ", ", h.kh, ", ", h.kw,
                  "], but weight_shape is [", shape[0], ", ", shape[1], ", ", shape[2], ", ",
                  shape[3], "]");
  STD_TORCH_CHECK(x.dim() == 4, op, ": x must be 4-D [N, C, H, W], but is ", x.dim(), "-D");
  STD_TORCH_CHECK(x.size(1) == h.c * h.groups, op, ": x has ", x.size(1),
                  " channels, but the weight takes ", h.c * h.groups);
}

inline bool is_codes(const cpu::Value& t) {
  return t.scalar_type() == ScalarType::Byte || t.scalar_type() == ScalarType::Char;
}

inline cpu::Dtype type_of_codes(const cpu::Value& t) {
  return t.scalar_type() == ScalarType::Byte ? cpu::Dtype::u8 : cpu::Dtype::s8;
}

// t: null where there is none.
inline void conv_residual(const char* op, const cpu::Value* t, double factor, int64_t zero,
                          const cpu::ConvShape& s) {
  if (t == nullptr) {
    STD_TORCH_CHECK(factor == 1.0 && zero == 0, op,
                    ": residual_scale and residual_zero_point are for a residual");
    return;
  }
  conv_residual_shape(op, *t, s);
  if (is_codes(*t)) {
    scale(op, "residual_scale", factor);
    return zero_point(op, "residual_zero_point", zero, type_of_codes(*t));
  }
  float_dtype(op, "residual", t->scalar_type());
  STD_TORCH_CHECK(factor == 1.0 && zero == 0, op,
                  ": residual_scale and residual_zero_point are for int8 and uint8 residuals");
}

}  // namespace pyops::checks
