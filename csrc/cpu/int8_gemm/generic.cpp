// 4 x 8 tile in plain C++, for any CPU.
#include "cpu/common/half.h"
#include "cpu/int8_gemm/int8_gemm.h"

namespace pyops::cpu::generic {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/norm_row.inl.h"
#include "cpu/int8_gemm/quantize_row.inl.h"
#include "cpu/int8_gemm/plain_block.inl.h"

}  // namespace

void int8_gemm_block(const Int8GemmBlock& b) { plain_block<4, 8>(b); }
void norm_row(const NormRow& row) { norm_row_impl(row); }
void quantize_row(const QuantizeRow& row) { quantize_row_impl(row); }

}  // namespace pyops::cpu::generic
