#include "cpu/int8_conv_relu/int8_conv_relu.h"

namespace pyops::cpu {
namespace {

const Int8ConvReluKernel kRows[] = {
#define PYOPS_INT8_CONV_RELU_KERNEL(name, isa, test_only)                  \
  {{#name, Isa::isa, test_only, static_cast<int>(kChannelStep), 1, false}, \
   name::int8_depthwise_scratch,                                           \
   name::int8_depthwise},
#include "cpu/int8_conv_relu/kernels.inc"
#undef PYOPS_INT8_CONV_RELU_KERNEL
};

}  // namespace

KernelTable int8_conv_relu_kernels("int8_conv_relu", kRows);

}  // namespace pyops::cpu
