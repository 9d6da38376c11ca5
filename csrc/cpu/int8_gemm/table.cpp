#include "cpu/int8_gemm/int8_gemm.h"

namespace pyops::cpu {
namespace {

const Int8GemmKernel kRows[] = {
#define PYOPS_INT8_GEMM_KERNEL(name, isa, test_only, mr, nr, kr, min_m, codes, either, tap_depth) \
  {{#name, Isa::isa, test_only, nr, kr, Codes::codes == Codes::u8x4, min_m},                      \
   mr,                                                                                            \
   Codes::codes,                                                                                  \
   either,                                                                                        \
   tap_depth,                                                                                     \
   name::int8_gemm_block,                                                                         \
   name::quantize_row,                                                                            \
   name::norm_row},
#include "cpu/int8_gemm/kernels.inc"
#undef PYOPS_INT8_GEMM_KERNEL
};

}  // namespace

KernelTable int8_gemm_kernels("int8_gemm", kRows);

}  // namespace pyops::cpu
