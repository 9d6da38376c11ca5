// A kernel that multiplies floats, whatever the tensors hold. Include after vec_<isa>.inl.h and
// fused_<isa>.inl.h; the kernel file provides kMr and kTileVecs.

constexpr int kNr = kTileVecs * kLanes, kPair = 1;
constexpr int kDepthStep = 1, kRowStep = 1, kWeightStep = 1;

inline F32 dot(F32 a, F32 b, F32 c) { return fma(a, b, c); }

#include "cpu/attention/values.inl.h"
#include "cpu/attention/pack.inl.h"
#include "cpu/attention/softmax.inl.h"
#include "cpu/attention/direct.inl.h"
#include "cpu/attention/tiles.inl.h"
using Weights = FloatWeights;
#include "cpu/attention/attend.inl.h"

void attend_part(const AttentionProblem& p, int64_t begin, int64_t end, char* scratch) {
  switch (p.type) {
    case Dtype::bf16: return attend_blocks<Floats<FromBf16>, FromBf16>(p, begin, end, scratch);
    case Dtype::f16: return attend_blocks<Floats<FromF16>, FromF16>(p, begin, end, scratch);
    default: return attend_blocks<Floats<FromF32>, FromF32>(p, begin, end, scratch);
  }
}
