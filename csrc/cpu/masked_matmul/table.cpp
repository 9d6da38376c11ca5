#include "cpu/masked_matmul/masked_matmul.h"

namespace pyops::cpu {
namespace {

// All kernels take one layout.
const MaskedKernel kRows[] = {
#define PYOPS_MASKED_MATMUL_KERNEL(name, isa, test_only, tokens, sum_floats)                   \
  {{#name, Isa::isa, test_only, static_cast<int>(kMaskedRows), static_cast<int>(kMaskedDepth), \
    false},                                                                                    \
   tokens,                                                                                     \
   sum_floats,                                                                                 \
   name::masked::turn,                                                                         \
   name::masked::multiply,                                                                     \
   name::masked::finish},
#include "cpu/masked_matmul/kernels.inc"
#undef PYOPS_MASKED_MATMUL_KERNEL
};

}  // namespace

KernelTable masked_matmul_kernels("masked_matmul", kRows);

}  // namespace pyops::cpu
