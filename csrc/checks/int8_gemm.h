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

inline void dense_vector(const char* op, const char* name, const Tensor& t, ScalarType type,
                         const char* type_name) {
  cpu_tensor(op, name, t);
  STD_TORCH_CHECK(t.scalar_type() == type, op, ": ", name, " must be ", type_name);
  STD_TORCH_CHECK(t.is_contiguous(), op, ": ", name, " must be contiguous");
}

inline void channels(const char* op, const char* name, const OptionalTensor& t, int64_t n) {
  if (!t.has_value()) return;
  dense_vector(op, name, *t, ScalarType::Float, "torch.float32");
  STD_TORCH_CHECK(t->dim() == 1 && t->size(0) == n, op, ": ", name, " must be [", n, "]");
}

inline void rows(const char* op, const char* name, const OptionalTensor& t, ScalarType type,
                 const char* type_name, int64_t m) {
  if (!t.has_value()) return;
  dense_vector(op, name, *t, type, type_name);
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

// The header of a packed weight of shape [n, k]; -1 accepts any.
inline const cpu::PackedHeader& packed(const char* op, const Tensor& t, int64_t n, int64_t k) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Byte && t.dim() == 1, op,
                  ": packed must be the 1-D torch.uint8 tensor that int8_pack returns");
  dense_vector(op, "packed", t, ScalarType::Byte, "torch.uint8");
  const void* bytes = t.const_data_ptr();
  const char* problem = cpu::packed_problem(bytes, t.numel());
  STD_TORCH_CHECK(problem == nullptr, op, ": packed weight: ", problem ? problem : "");
  const cpu::PackedHeader& h = cpu::packed_header(bytes);
  STD_TORCH_CHECK(n < 0 || h.n == n, op, ": the packed weight has ", h.n,
                  " output channels, but n is ", n);
  STD_TORCH_CHECK(k < 0 || h.k == k, op, ": the packed weight has K = ", h.k,
                  ", but the input's last dimension is ", k);
  return h;
}

inline void layout(const char* op, const cpu::PackedHeader& h, const cpu::Int8GemmKernel& kernel) {
  STD_TORCH_CHECK(h.nr == kernel.nr && h.kr == kernel.kr, op, ": the weight is packed as n", h.nr,
                  "k", h.kr, ", but kernel ", kernel.name, " takes n", kernel.nr, "k", kernel.kr,
                  "; pack it again (int8_unpack, then int8_pack)");
}

inline void code(const char* op, const char* name, int64_t value, int64_t count) {
  STD_TORCH_CHECK(value >= 0 && value < count, op, ": ", name, " code ", value, " is unknown");
}

}  // namespace pyops::checks
