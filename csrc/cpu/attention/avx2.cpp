// 6 x 16 tile of float FMAs. ymm: 12 sums + 2 of k or v + 1 broadcast = 15 of 16.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/attention/pack.h"
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"

PYOPS_TARGET_BEGIN("avx2,fma,f16c")
namespace pyops::cpu::avx2::attention {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/fused_avx2.inl.h"

constexpr int kMr = 6, kTileVecs = 2, kNr = kTileVecs * kLanes, kPair = 1;
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

}  // namespace pyops::cpu::avx2::attention
PYOPS_TARGET_END
#endif
