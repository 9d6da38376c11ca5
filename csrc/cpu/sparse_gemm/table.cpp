#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

namespace pyops::cpu {
namespace {

const SparseGemmKernel kRows[] = {
#define PYOPS_SPARSE_GEMM_KERNEL(name, isa, test_only, nr, kr, products) \
  {{#name, Isa::isa, test_only, nr, kr, false},                          \
   SparseProducts::products,                                             \
   name::sparse_tokens,                                                  \
   name::sparse_multiply,                                                \
   name::sparse_finish},
#include "cpu/sparse_gemm/kernels.inc"
#undef PYOPS_SPARSE_GEMM_KERNEL
};

}  // namespace

KernelTable sparse_gemm_kernels("sparse_gemm", kRows);

const SparseGemmKernel& sparse_kernel_for(SparseProducts products) {
  const bool codes = products == SparseProducts::s32;
  return best<SparseGemmKernel>(codes ? int8_sparse_gemm_kernels : sparse_gemm_kernels);
}

}  // namespace pyops::cpu
