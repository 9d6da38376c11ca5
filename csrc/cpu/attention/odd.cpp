// 3 x 5 tile: sizes that nothing divides, so that packing and blocks cannot count on luck.
#include "cpu/target.h"
#include "cpu/attention/pack.h"
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"

namespace pyops::cpu::odd::attention {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/fused_generic.inl.h"

constexpr int kMr = 3, kTileVecs = 5;

#include "cpu/attention/floats.inl.h"

}  // namespace

#include "cpu/attention/entries.inl.h"

}  // namespace pyops::cpu::odd::attention
