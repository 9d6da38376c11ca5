// 6 x 64 tile of bf16 pairs. zmm: 24 sums + 4 of k or v + 1 broadcast = 29 of 32.
#define PYOPS_AVX512_BF16
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/attention/pack.h"
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
namespace pyops::cpu::avx512bf16::attention {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"

constexpr int kMr = 6, kTileVecs = 4, kNr = kTileVecs * kLanes, kPair = 2;
constexpr int kDepthStep = 1, kRowStep = 1, kWeightStep = 2;

inline F32 dot(F32 a, F32 b, F32 c) {
  return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

#include "cpu/attention/values.inl.h"
#include "cpu/attention/pack.inl.h"
#include "cpu/attention/softmax.inl.h"
#include "cpu/attention/pairs.inl.h"
#include "cpu/attention/direct.inl.h"
#include "cpu/attention/tiles.inl.h"
using Weights = PairWeights;
#include "cpu/attention/attend.inl.h"

void attend_part(const AttentionProblem& p, int64_t begin, int64_t end, char* scratch) {
  attend_blocks<Bf16Pairs, FromBf16>(p, begin, end, scratch);
}

}  // namespace

#include "cpu/attention/entries.inl.h"

}  // namespace pyops::cpu::avx512bf16::attention
PYOPS_TARGET_END
#endif
