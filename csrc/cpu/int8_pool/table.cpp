#include "cpu/int8_pool/int8_pool.h"

namespace pyops::cpu {
namespace {

const Int8PoolKernel kRows[] = {
#define PYOPS_INT8_POOL_KERNEL(name, isa, test_only, codes) \
  {{#name, Isa::isa, test_only, codes, 1, false}, name::code_rows, name::pool_row},
#include "cpu/int8_pool/kernels.inc"
#undef PYOPS_INT8_POOL_KERNEL
};

}  // namespace

KernelTable int8_pool_kernels("int8_pool", kRows);

}  // namespace pyops::cpu
