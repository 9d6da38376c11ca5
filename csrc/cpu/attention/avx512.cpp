// 6 x 64 tile of float FMAs. zmm: 24 sums + 4 of k or v + 1 broadcast = 29 of 32.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/attention/pack.h"
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq")
namespace pyops::cpu::avx512::attention {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"

constexpr int kMr = 6, kTileVecs = 4, kNr = kTileVecs * kLanes, kPair = 1;
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

}  // namespace pyops::cpu::avx512::attention
PYOPS_TARGET_END
#endif
