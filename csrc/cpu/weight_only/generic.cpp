// 4 x 8 tile in plain C++, for any CPU.
#include "cpu/common/half.h"
#include "cpu/weight_only/pack.h"

namespace pyops::cpu::generic {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/weight_only/widen.inl.h"
#include "cpu/weight_only/plain_block.inl.h"

}  // namespace

void weight_only_block(const WeightBlock& b) { plain_block<4, 8>(b); }
bool widen_row(const WidenRow& row) { return widen_row_impl(row); }

}  // namespace pyops::cpu::generic
