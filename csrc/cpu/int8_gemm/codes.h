// A product of codes on pointers: what int8_gemm runs once its arguments are checked.
#pragma once
#include "checks/int8_sparse_gemm.h"
#include "cpu/int8_gemm/operands.h"

namespace pyops::cpu {

// A packed weight [n, k], and the kernel that reads it.
struct CodesWeight {
  const void* packed;
  const Int8GemmKernel* kernel;  // null: the weight is sparse
};

// Raises unless `packed` is a weight of that shape, dense or sparse, that a kernel reads which is
// allowed now. m: rows of the product.
inline CodesWeight codes_weight(const char* op, const Tensor& packed, int64_t n, int64_t k,
                                int64_t m) {
  const void* bytes = packed.const_data_ptr();
  if (checks::is_sparse(packed)) {
    checks::sparse_linear_shape(op, checks::packed_int8_sparse(op, packed), n, k);
    return {bytes, nullptr};
  }
  return {bytes, &kernel_for(op, checks::packed(op, packed, n, k), m)};
}

// a: [m, k] codes, contiguous, int8 if `is_signed`, else uint8. The epilogue's w_sum and zero_shift
// are set here.
void multiply_codes(const CodesWeight& weight, const Shape& s, bool is_signed, const void* a,
                    const Epilogue& epilogue);

}  // namespace pyops::cpu
