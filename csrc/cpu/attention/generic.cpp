// 4 x 4 tile in plain C++, for any CPU.
#include "cpu/target.h"
#include "cpu/attention/pack.h"
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"

namespace pyops::cpu::generic::attention {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/fused_generic.inl.h"

constexpr int kMr = 4, kTileVecs = 4;

#include "cpu/attention/floats.inl.h"

}  // namespace

#include "cpu/attention/entries.inl.h"

}  // namespace pyops::cpu::generic::attention
