// A product of codes on pointers: what int8_gemm runs once its arguments are checked.
#pragma once
#include "cpu/int8_gemm/operands.h"

namespace pyops::cpu {

// a: [m, k] codes, contiguous, int8 if `is_signed`, else uint8; packed: a weight [n, k] that
// `kernel` reads. The epilogue's w_sum and zero_shift are set here.
void multiply_codes(const Int8GemmKernel& kernel, const void* packed, const Shape& s,
                    bool is_signed, const void* a, const Epilogue& epilogue);

}  // namespace pyops::cpu
