#include "cpu/conv_relu/conv_relu.h"

namespace pyops::cpu {
namespace {

const ConvKernel kRows[] = {
#define PYOPS_CONV_RELU_KERNEL(name, isa, test_only, mr, nr, kr, products) \
  {{#name, Isa::isa, test_only, nr, kr, false},                            \
   mr,                                                                     \
   ConvProducts::products,                                                 \
   name::conv_tile,                                                        \
   name::conv_depthwise,                                                   \
   name::conv_gather,                                                      \
   name::conv_pool,                                                        \
   name::conv_winograd_input,                                              \
   name::conv_winograd_output,                                             \
   name::conv_start,                                                       \
   name::conv_stop},
#include "cpu/conv_relu/kernels.inc"
#undef PYOPS_CONV_RELU_KERNEL
};

}  // namespace

KernelTable conv_relu_kernels("conv_relu", kRows);

}  // namespace pyops::cpu
