// Argument checks of products with a sparse weight, made before a pointer is touched. The words are
// those of pyops/ops/sparse_gemm_checks.py and conv_relu_checks.py.
#pragma once
#include "checks/conv_relu.h"
#include "cpu/int8_gemm/int8_gemm.h"
#include "cpu/sparse_gemm/few_rows.h"

namespace pyops::checks {

inline void sparse_dtype(const char* op, const char* name, ScalarType type) {
  STD_TORCH_CHECK(
      type == ScalarType::Float || type == ScalarType::BFloat16 || type == ScalarType::Char, op,
      ": ", name, " must be torch.float32, torch.bfloat16 or torch.int8");
}

// Of a weight of that type: how many products a sum of int32 may have.
inline void sparse_depth(const char* op, ScalarType type, int64_t depth) {
  STD_TORCH_CHECK(type != ScalarType::Char || depth <= cpu::kMaxK, op, ": KH * KW * C / groups is ",
                  depth, ", but at most 65536 is exact in int32");
}

// The header of a sparse weight.
inline const cpu::SparseHeader& packed_sparse(const char* op, const Tensor& t) {
  const void* bytes = packed_bytes(op, "sparse_pack", t);
  const char* problem = cpu::sparse_problem(bytes, t.numel());
  STD_TORCH_CHECK(problem == nullptr, op, ": packed weight: ", problem ? problem : "");
  return cpu::sparse_header(bytes);
}

// The same of a weight of that shape and type.
inline const cpu::SparseHeader& packed_sparse(const char* op, const Tensor& t, cpu::Ints shape,
                                              cpu::Dtype type) {
  const cpu::SparseHeader& h = packed_sparse(op, t);
  packed_conv_shape(op, h, shape, type);
  return h;
}

// Whether `t` holds a sparse weight; whatever else it holds is for others to check.
inline bool is_sparse(const Tensor& t) {
  return t.scalar_type() == ScalarType::Byte && t.is_cpu() && t.is_contiguous() &&
         cpu::is_sparse(t.const_data_ptr(), t.numel());
}

inline void sparse_layout(const char* op, const cpu::SparseHeader& h,
                          const cpu::SparseGemmKernel& kernel) {
  const bool fits = h.nr == kernel.nr && h.kr == kernel.kr;
  packed_layout(op, h, kernel, fits && (!h.of_code_panels() || kernel.panels.quads));
}

// Of a weight in panels: of the kernel's outputs or of half of them.
inline void lists_layout(const char* op, const cpu::SparseHeader& h,
                         const cpu::ConvKernel& kernel) {
  const bool width = h.nr == kernel.nr || h.nr == kernel.nr / 2;
  packed_layout(op, h, kernel, width && h.kr == kernel.kr);
}

}  // namespace pyops::checks
