// Argument checks that several ops make, before a pointer is touched. The words are those of
// pyops/ops/checks.py.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "cpu/common/value.h"

namespace pyops::checks {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline int64_t rows_of(const Tensor& t) {
  int64_t rows = 1;
  for (int64_t i = 0; i + 1 < t.dim(); ++i) rows *= t.size(i);
  return rows;
}

inline cpu::Dtype float_dtype(const char* op, const char* name, ScalarType type) {
  switch (type) {
    case ScalarType::Float: return cpu::Dtype::f32;
    case ScalarType::BFloat16: return cpu::Dtype::bf16;
    case ScalarType::Half: return cpu::Dtype::f16;
    default:
      STD_TORCH_CHECK(false, op, ": ", name,
                      " must be torch.float32, torch.bfloat16 or torch.float16");
  }
}
inline cpu::Dtype float_dtype(const char* op, const char* name, const Tensor& t) {
  return float_dtype(op, name, t.scalar_type());
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

inline void residual_rows(const char* op, const OptionalTensor& t, const Tensor& input, int64_t n) {
  if (!t.has_value()) return;
  cpu_tensor(op, "residual", *t);
  float_dtype(op, "residual", *t);
  bool same = t->dim() == input.dim() && t->size(t->dim() - 1) == n;
  for (int64_t i = 0; same && i + 1 < input.dim(); ++i) same = t->size(i) == input.size(i);
  STD_TORCH_CHECK(same, op, ": residual must have the shape of the output");
}

inline void code(const char* op, const char* name, int64_t value, int64_t count) {
  STD_TORCH_CHECK(value >= 0 && value < count, op, ": ", name, " code ", value, " is unknown");
}

// A scale, which is cast to float: its finite range.
inline void scale(const char* op, const char* name, double value) {
  STD_TORCH_CHECK(value >= 1.17549435e-38 && value <= 3.4028234e38, op, ": ", name,
                  " must be positive and finite, but is ", value);
}

// type: s8 or u8.
inline void zero_point(const char* op, const char* name, int64_t value, cpu::Dtype type) {
  const int64_t lowest = type == cpu::Dtype::u8 ? 0 : -128;
  STD_TORCH_CHECK(value >= lowest && value <= lowest + 255, op, ": ", name, " must be in [", lowest,
                  ", ", lowest + 255, "], but is ", value);
}

// What a linear op's epilogue takes.
inline void epilogue(const char* op, const Tensor& input, int64_t n, const OptionalTensor& scale_w,
                     const OptionalTensor& bias, const OptionalTensor& residual, int64_t activation,
                     int64_t out_dtype, int64_t out_dtypes) {
  channels(op, "scale_w", scale_w, n);
  channels(op, "bias", bias, n);
  residual_rows(op, residual, input, n);
  code(op, "activation", activation, cpu::kLinearActivations);
  code(op, "out_dtype", out_dtype, out_dtypes);
}

// The bytes that `pack` returned; `pack` is what to call them.
inline const void* packed_bytes(const char* op, const char* pack, const Tensor& t) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Byte && t.dim() == 1, op,
                  ": packed must be the 1-D torch.uint8 tensor that ", pack, " returns");
  cpu_tensor(op, "packed", t);
  const void* bytes = t.const_data_ptr();
  STD_TORCH_CHECK(t.is_contiguous() && reinterpret_cast<uintptr_t>(bytes) % 8 == 0, op,
                  ": packed must be contiguous and aligned to 8 bytes");
  return bytes;
}

// The shape in the header of a packed weight, against the one that the call is for.
inline void packed_shape(const char* op, int64_t packed_n, int64_t packed_k, int64_t n, int64_t k) {
  STD_TORCH_CHECK(packed_n == n, op, ": the packed weight has ", packed_n,
                  " output channels, but n is ", n);
  STD_TORCH_CHECK(packed_k == k, op, ": the packed weight has K = ", packed_k,
                  ", but the input's last dimension is ", k);
}

}  // namespace pyops::checks
