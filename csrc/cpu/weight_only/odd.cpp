// 3 x 5 tile: sizes that nothing divides, so that packing and driver cannot count on luck.
#include "cpu/common/half.h"
#include "cpu/weight_only/pack.h"

namespace pyops::cpu::odd {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/weight_only/widen.inl.h"
#include "cpu/weight_only/plain_block.inl.h"

}  // namespace

void weight_only_block(const WeightBlock& b) { plain_block<3, 5>(b); }
bool widen_row(const WidenRow& row) { return widen_row_impl(row); }

}  // namespace pyops::cpu::odd
