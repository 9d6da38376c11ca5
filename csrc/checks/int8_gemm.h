// Argument checks of the int8 ops, made before a pointer is touched. The words are those of
// pyops/ops/checks.py, which checks first with friendlier exception types; this is the second line,
// for calls that go straight to torch.ops.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "cpu/int8_gemm/pack.h"

namespace pyops::checks {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline int64_t rows_of(const Tensor& t) {
  int64_t rows = 1;
  for (int64_t i = 0; i + 1 < t.dim(); ++i) rows *= t.size(i);
  return rows;
}

inline cpu::Dtype float_dtype(const char* op, const char* name, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return cpu::Dtype::f32;
    case ScalarType::BFloat16: return cpu::Dtype::bf16;
    case ScalarType::Half: return cpu::Dtype::f16;
    default:
      STD_TORCH_CHECK(false, op, ": ", name,
                      " must be torch.float32, torch.bfloat16 or torch.float16");
  }
}

inline void at_least_1d(const char* op, const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.dim() >= 1, op, ": ", name, " must have at least 1 dimension, but has 0");
}

inline void cpu_tensor(const char* op, const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.is_cpu(), op, ": ", name, " must be on the CPU like the first argument");
}

inline void cpu_tensor(const char* op, const char* name, const Tensor& t, ScalarType type,
                       const char* type_name) {
  cpu_tensor(op, name, t);
  STD_TORCH_CHECK(t.scalar_type() == type, op, ": ", name, " must be ", type_name);
}

inline void channels(const char* op, const char* name, const OptionalTensor& t, int64_t n) {
  if (!t.has_value()) return;
  cpu_tensor(op, name, *t, ScalarType::Float, "torch.float32");
  STD_TORCH_CHECK(t->dim() == 1 && t->size(0) == n, op, ": ", name, " must be [", n, "]");
}

inline void rows(const char* op, const char* name, const OptionalTensor& t, ScalarType type,
                 const char* type_name, int64_t m) {
  if (!t.has_value()) return;
  cpu_tensor(op, name, *t, type, type_name);
  STD_TORCH_CHECK(t->numel() == 1 || t->numel() == m, op, ": ", name, " must have 1 element or ", m,
                  " (one per row), but has ", t->numel());
}

inline void residual(const char* op, const OptionalTensor& t, const Tensor& input, int64_t n) {
  if (!t.has_value()) return;
  cpu_tensor(op, "residual", *t);
  float_dtype(op, "residual", *t);
  bool same = t->dim() == input.dim() && t->size(t->dim() - 1) == n;
  for (int64_t i = 0; same && i + 1 < input.dim(); ++i) same = t->size(i) == input.size(i);
  STD_TORCH_CHECK(same, op, ": residual must have the shape of the output");
}

inline void same_length(const char* op, const char* name, size_t length, size_t weights) {
  STD_TORCH_CHECK(length == weights, op, ": ", name, " has ", length, " entries for ", weights,
                  " weights");
}

// The header of a packed weight of shape [n, k].
inline const cpu::PackedHeader& packed(const char* op, const Tensor& t, int64_t n, int64_t k) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Byte && t.dim() == 1, op,
                  ": packed must be the 1-D torch.uint8 tensor that int8_pack returns");
  cpu_tensor(op, "packed", t);
  const void* bytes = t.const_data_ptr();
  STD_TORCH_CHECK(t.is_contiguous() && reinterpret_cast<uintptr_t>(bytes) % 8 == 0, op,
                  ": packed must be contiguous and aligned to 8 bytes");
  const char* problem = cpu::packed_problem(bytes, t.numel());
  STD_TORCH_CHECK(problem == nullptr, op, ": packed weight: ", problem ? problem : "");
  const cpu::PackedHeader& h = cpu::packed_header(bytes);
  STD_TORCH_CHECK(h.n == n, op, ": the packed weight has ", h.n, " output channels, but n is ", n);
  STD_TORCH_CHECK(h.k == k, op, ": the packed weight has K = ", h.k,
                  ", but the input's last dimension is ", k);
  return h;
}

inline void layout(const char* op, const cpu::PackedHeader& h, const cpu::Int8GemmKernel& kernel) {
  STD_TORCH_CHECK(h.nr == kernel.nr && h.kr == kernel.kr && h.cut == kernel.cut, op,
                  ": the weight is packed as n", h.nr, "k", h.kr, h.cut ? "cut" : "",
                  ", but kernel ", kernel.name, " takes n", kernel.nr, "k", kernel.kr,
                  kernel.cut ? "cut" : "", "; pack it again (int8_unpack, then int8_pack)");
}

inline void code(const char* op, const char* name, int64_t value, int64_t count) {
  STD_TORCH_CHECK(value >= 0 && value < count, op, ": ", name, " code ", value, " is unknown");
}

// What the output type allows. The finite range of float is what out_scale is cast to.
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
  STD_TORCH_CHECK(out_scale >= 1.17549435e-38 && out_scale <= 3.4028234e38, op,
                  ": out_scale must be positive and finite, but is ", out_scale);
  const int64_t lowest = type == cpu::Dtype::u8 ? 0 : -128;
  STD_TORCH_CHECK(out_zero_point >= lowest && out_zero_point <= lowest + 255, op,
                  ": out_zero_point must be in [", lowest, ", ", lowest + 255, "], but is ",
                  out_zero_point);
}

}  // namespace pyops::checks
