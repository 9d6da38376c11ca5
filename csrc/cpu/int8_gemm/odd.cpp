// 3 x 5 tile: sizes that nothing divides, so that packing and driver cannot count on luck.
#include "cpu/common/half.h"
#include "cpu/int8_gemm/int8_gemm.h"

namespace pyops::cpu::odd {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/norm_row.inl.h"
#include "cpu/int8_gemm/quantize_row.inl.h"
#include "cpu/int8_gemm/plain_block.inl.h"

}  // namespace

void int8_gemm_block(const Int8GemmBlock& b) { plain_block<3, 5>(b); }
void norm_row(const NormRow& row) { norm_row_impl(row); }
void quantize_row(const QuantizeRow& row) { quantize_row_impl(row); }

}  // namespace pyops::cpu::odd
