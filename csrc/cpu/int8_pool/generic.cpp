// 16 channels at a time in plain C++, for any CPU.
#include "cpu/target.h"
#include "cpu/common/half.h"
#include "cpu/int8_pool/int8_pool.h"

namespace pyops::cpu::generic {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/int8_pool/codes.inl.h"

constexpr int kCodes = 16;

#include "cpu/int8_pool/plain_codes.inl.h"
#include "cpu/int8_pool/pool.inl.h"

}  // namespace

void code_rows(const CodeRows& rows) { code_rows_impl(rows); }
void pool_row(const PoolRow& row) { pool_row_impl(row); }

}  // namespace pyops::cpu::generic
