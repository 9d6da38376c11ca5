// What the int8 ops share on their way from tensors to a product: the kernel for a packed weight,
// contiguous operands, outputs, epilogues. Only drivers include this.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <vector>

#include "checks/int8_gemm.h"
#include "cpu/common/new_tensor.h"
#include "cpu/int8_gemm/multiply.h"

namespace pyops::cpu {

using checks::OptionalTensor;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline const Int8GemmKernel& active_kernel() { return best<Int8GemmKernel>(int8_gemm_kernels); }

// Packs what `kernel`, of a cut layout, cannot take (kernels.inc).
inline const Int8GemmKernel& next_of(const Int8GemmKernel& kernel) { return *(&kernel + 1); }

inline bool same_layout(const PackedHeader& h, const KernelRow& row) {
  return h.nr == row.nr && h.kr == row.kr && h.cut == row.cut;
}

// The packer chose a layout; the driver takes the best kernel that reads it and likes m rows.
inline const Int8GemmKernel& kernel_for(const char* op, const PackedHeader& header, int64_t m) {
  const Int8GemmKernel& active = active_kernel();
  if (active.cut && same_layout(header, next_of(active))) return next_of(active);
  checks::layout(op, header, active);
  if (m >= active.min_m || int8_gemm_kernels.forced()) return active;
  for (int i = 0; i < int8_gemm_kernels.count(); ++i) {
    const auto& row = static_cast<const Int8GemmKernel&>(int8_gemm_kernels.row(i));
    const bool usable = !row.test_only && (isa_allowed() & bit(row.isa));
    if (usable && same_layout(header, row) && m >= row.min_m) return row;
  }
  return active;
}

template <class T>
const T* pointer(const OptionalTensor& t) {
  return t.has_value() ? static_cast<const T*>(t->const_data_ptr()) : nullptr;
}

inline Tensor dense(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}
inline OptionalTensor dense(const OptionalTensor& t) { return t.has_value() ? dense(*t) : t; }

constexpr ScalarType kTypes[] = {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half,
                                 ScalarType::Char,  ScalarType::Byte,     ScalarType::Int};

inline Tensor output_like(const Tensor& input, int64_t n, int64_t out_dtype) {
  std::vector<int64_t> sizes(input.sizes().begin(), input.sizes().end());
  sizes.back() = n;
  return new_tensor(sizes, kTypes[out_dtype]);
}

// The epilogue's operands, contiguous, and kept alive while it points into them.
struct Operands {
  OptionalTensor scale_w, bias, residual;
};

inline Epilogue epilogue_of(const Tensor& packed, const Operands& operands, int64_t activation,
                            int64_t out_dtype, const Tensor& out) {
  Epilogue e = {};
  e.w_sum = packed_sums(packed.const_data_ptr());
  e.scale_w = pointer<float>(operands.scale_w);
  e.bias = pointer<float>(operands.bias);
  if (operands.residual.has_value()) {
    e.residual = operands.residual->const_data_ptr();
    e.residual_type = checks::float_dtype("epilogue", "residual", *operands.residual);
  }
  e.activation = static_cast<Activation>(activation);
  e.out_type = static_cast<Dtype>(out_dtype);
  e.out = out.mutable_data_ptr();
  e.ld = out.size(out.dim() - 1);
  return e;
}

inline void check_common(const char* op, const Tensor& input, int64_t n,
                         const OptionalTensor& scale_w, const OptionalTensor& bias,
                         const OptionalTensor& residual, int64_t activation, int64_t out_dtype,
                         int64_t out_dtypes) {
  checks::channels(op, "scale_w", scale_w, n);
  checks::channels(op, "bias", bias, n);
  checks::residual(op, residual, input, n);
  checks::code(op, "activation", activation, 5);
  checks::code(op, "out_dtype", out_dtype, out_dtypes);
}

}  // namespace pyops::cpu
