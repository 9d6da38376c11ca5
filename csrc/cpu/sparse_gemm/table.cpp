#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

namespace pyops::cpu {
namespace {

const SparseGemmKernel kRows[] = {
#define PYOPS_SPARSE_GEMM_KERNEL(name, isa, test_only, nr, kr, products, few, of) \
  {{#name, Isa::isa, test_only, nr, kr, false},                                   \
   SparseProducts::products,                                                      \
   name::sparse_tokens,                                                           \
   name::sparse_multiply,                                                         \
   name::sparse_finish,                                                           \
   few,                                                                           \
   of,                                                                            \
   name::sparse_few_rows},
#include "cpu/sparse_gemm/kernels.inc"
#undef PYOPS_SPARSE_GEMM_KERNEL
};

}  // namespace

KernelTable sparse_gemm_kernels("sparse_gemm", kRows);

const SparseGemmKernel& sparse_kernel_for(Dtype type) {
  if (type == Dtype::s8) return best<SparseGemmKernel>(int8_sparse_gemm_kernels);
  const auto& active = best<SparseGemmKernel>(sparse_gemm_kernels);
  if (active.products == SparseProducts::f32 || type == Dtype::bf16) return active;
  const SparseGemmKernel* row = &active;  // its level includes those of the rows that follow
  while (row->test_only != active.test_only || row->products != SparseProducts::f32) ++row;
  return *row;
}

}  // namespace pyops::cpu
