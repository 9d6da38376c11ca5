#include "cpu/attention/attention.h"

namespace pyops::cpu {
namespace {

const AttentionKernel kRows[] = {
#define PYOPS_ATTENTION_KERNEL(name, isa, test_only, mr, nr, products)                    \
  {{#name, Isa::isa, test_only, nr, Products::products == Products::bf16 ? 2 : 1, false}, \
   mr,                                                                                    \
   Products::products,                                                                    \
   name::attention::scratch_bytes,                                                        \
   name::attention::blocks,                                                               \
   name::attention::attend},
#include "cpu/attention/kernels.inc"
#undef PYOPS_ATTENTION_KERNEL
};

}  // namespace

KernelTable attention_kernels("attention", kRows);

}  // namespace pyops::cpu
