// 64 tokens. zmm: of a pair 8 sums, 4 weights; of a quad 16 sums, 4 vectors of x, 4 weights.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/sparse_gemm/pack.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,prfchw")
namespace pyops::cpu::avx512 {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/sparse_gemm/items.inl.h"

constexpr int kVecs = 4, kQuadVecs = 4;
using Four = F32;

inline Four load_four(const char* p) {
  return _mm512_broadcast_f32x4(_mm_loadu_ps(reinterpret_cast<const float*>(p)));
}
// Not a broadcast from memory: loads are what bounds the kernel.
template <int kWhich>
inline F32 spread(Four w) {
  return _mm512_permute_ps(w, kWhich * 0x55);
}

#include "cpu/sparse_gemm/lanes.inl.h"

}  // namespace

#include "cpu/sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::avx512
PYOPS_TARGET_END
#endif
