#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

namespace pyops::cpu {
namespace {

const SparseGemmKernel kRows[] = {
#define PYOPS_INT8_SPARSE_GEMM_KERNEL(name, isa, test_only, nr, kr, few, of, panels) \
  {{#name, Isa::isa, test_only, nr, kr, false},                                      \
   SparseProducts::s32,                                                              \
   name::int8_sparse_tokens,                                                         \
   name::int8_sparse_multiply,                                                       \
   name::int8_sparse_finish,                                                         \
   few,                                                                              \
   of,                                                                               \
   name::int8_sparse_few_rows,                                                       \
   panels},
#define PYOPS_PANELS(name, quads_mr, quads_nr, windows_mr, windows_nr)   \
  {                                                                      \
    quads_mr, quads_nr, windows_mr, windows_nr, name::int8_sparse_quads, \
        name::int8_sparse_windows8, name::int8_sparse_windows16          \
  }
#include "cpu/int8_sparse_gemm/kernels.inc"
#undef PYOPS_PANELS
#undef PYOPS_INT8_SPARSE_GEMM_KERNEL
};

}  // namespace

KernelTable int8_sparse_gemm_kernels("int8_sparse_gemm", kRows);

}  // namespace pyops::cpu
