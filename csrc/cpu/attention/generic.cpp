// 4 x 4 tile in plain C++, for any CPU.
#include "cpu/target.h"
#include "cpu/attention/pack.h"
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"

namespace pyops::cpu::generic::attention {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/fused_generic.inl.h"

constexpr int kMr = 4, kTileVecs = 4, kNr = kTileVecs * kLanes, kPair = 1;
constexpr int kDepthStep = 1, kRowStep = 1, kWeightStep = 1;

inline F32 dot(F32 a, F32 b, F32 c) { return fma(a, b, c); }

#include "cpu/attention/values.inl.h"
#include "cpu/attention/pack.inl.h"
#include "cpu/attention/softmax.inl.h"
#include "cpu/attention/direct.inl.h"
#include "cpu/attention/tiles.inl.h"
using Weights = FloatWeights;
#include "cpu/attention/attend.inl.h"
#include "cpu/attention/attend_floats.inl.h"

}  // namespace

int64_t scratch_bytes(const AttentionProblem& p) { return scratch_of(p, kShape).bytes; }
int64_t blocks(const AttentionProblem& p) { return count_blocks(p); }
void attend(const AttentionProblem& p, int64_t begin, int64_t end, void* scratch) {
  attend_floats(p, begin, end, static_cast<char*>(scratch));
}

}  // namespace pyops::cpu::generic::attention
