#include "cpu/weight_only/weight_only.h"

namespace pyops::cpu {
namespace {

const WeightKernel kRows[] = {
#define PYOPS_WEIGHT_ONLY_KERNEL(name, isa, test_only, mr, nr, decode_from) \
  {{#name, Isa::isa, test_only, nr, static_cast<int>(kWeightDepth), false}, \
   mr,                                                                      \
   decode_from,                                                             \
   name::weight_only_block,                                                 \
   name::widen_row},
#include "cpu/weight_only/kernels.inc"
#undef PYOPS_WEIGHT_ONLY_KERNEL
};

}  // namespace

KernelTable weight_only_kernels("weight_only", kRows);

}  // namespace pyops::cpu
