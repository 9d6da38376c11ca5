// Argument checks of the int8 ops, made before a pointer is touched. The words are those of
// pyops/ops/checks.py, which checks with friendlier exception types once these have refused.
#pragma once
#include <cmath>

#include "checks/common.h"
#include "cpu/int8_gemm/pack.h"
#include "cpu/sparse_gemm/pack.h"

namespace pyops::checks {

inline void rows(const char* op, const char* name, const OptionalTensor& t, ScalarType type,
                 const char* type_name, int64_t m) {
  if (!t.has_value()) return;
  cpu_tensor(op, name, *t, type, type_name);
  STD_TORCH_CHECK(t->numel() == 1 || t->numel() == m, op, ": ", name, " must have 1 element or ", m,
                  " (one per row), but has ", t->numel());
}

// The header of a packed weight of shape [n, k].
inline const cpu::PackedHeader& packed(const char* op, const Tensor& t, int64_t n, int64_t k) {
  const void* bytes = packed_bytes(op, "int8_pack", t);
  STD_TORCH_CHECK(!cpu::is_sparse(bytes, t.numel()), op,
                  ": packed weight: a sparse one, which this op does not take");
  const char* problem = cpu::packed_problem(bytes, t.numel());
  STD_TORCH_CHECK(problem == nullptr, op, ": packed weight: ", problem ? problem : "");
  const cpu::PackedHeader& h = cpu::packed_header(bytes);
  packed_shape(op, h.n, h.k, n, k);
  return h;
}

inline void layout(const char* op, const cpu::PackedHeader& h, const cpu::Int8GemmKernel& kernel) {
  STD_TORCH_CHECK(h.nr == kernel.nr && h.kr == kernel.kr && h.cut == kernel.cut, op,
                  ": the weight is packed as n", h.nr, "k", h.kr, h.cut ? "cut" : "",
                  ", but kernel ", kernel.name, " takes n", kernel.nr, "k", kernel.kr,
                  kernel.cut ? "cut" : "", "; pack it again (int8_unpack, then int8_pack)");
}

// What the output type allows.
inline void output(const char* op, int64_t out_dtype, int64_t activation, bool any_float_operand,
                   double out_scale, int64_t out_zero_point) {
  const auto type = static_cast<cpu::Dtype>(out_dtype);
  if (type == cpu::Dtype::s32) {
    STD_TORCH_CHECK(!any_float_operand, op,
                    ": out_dtype torch.int32 takes no scale, bias or residual");
    STD_TORCH_CHECK(activation == 0, op, ": out_dtype torch.int32 takes no activation");
  }
  if (type != cpu::Dtype::s8 && type != cpu::Dtype::u8) {
    STD_TORCH_CHECK(out_scale == 1.0 && out_zero_point == 0, op,
                    ": out_scale and out_zero_point are for int8 and uint8 outputs");
    return;
  }
  scale(op, "out_scale", out_scale);
  zero_point(op, "out_zero_point", out_zero_point, type);
}

// Rows that an 8-bit output cannot express; scale_a is contiguous.
inline void finite_scale(const char* op, int64_t out_dtype, const OptionalTensor& scale_a) {
  const auto type = static_cast<cpu::Dtype>(out_dtype);
  if (!scale_a.has_value() || (type != cpu::Dtype::s8 && type != cpu::Dtype::u8)) return;
  const float* values = static_cast<const float*>(scale_a->const_data_ptr());
  for (int64_t i = 0, count = scale_a->numel(); i < count; ++i) {
    STD_TORCH_CHECK(std::isfinite(values[i]), op,
                    ": scale_a holds NaN or Inf (a row of the input was not finite), which an "
                    "8-bit output cannot express");
  }
}

}  // namespace pyops::checks
