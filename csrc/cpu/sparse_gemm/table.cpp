#include "cpu/sparse_gemm/sparse_gemm.h"

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

const SparseGemmKernel& sparse_kernel_for(SparseProducts products) {
  const auto& active = best<SparseGemmKernel>(sparse_gemm_kernels);
  if (active.products == products) return active;
  const SparseGemmKernel* row = &active + 1;  // generic rows stand last, one for each products
  while (row->test_only || row->products != products || (bit(row->isa) & isa_allowed()) == 0) ++row;
  return *row;
}

}  // namespace pyops::cpu
