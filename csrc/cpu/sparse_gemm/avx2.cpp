// 32 tokens. ymm: of a pair 8 sums, 4 weights; of a quad 8 sums, 2 vectors of x, 4 weights.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/sparse_gemm/pack.h"

PYOPS_TARGET_BEGIN("avx2,f16c,fma,prfchw")
namespace pyops::cpu::avx2 {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/fused_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/sparse_gemm/items.inl.h"

constexpr int kVecs = 4, kQuadVecs = 2;
using Four = F32;

inline Four load_four(const char* p) {
  return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
}
template <int kWhich>
inline F32 spread(Four w) {
  return _mm256_permute_ps(w, kWhich * 0x55);
}

#include "cpu/sparse_gemm/lanes.inl.h"

}  // namespace

#include "cpu/sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::avx2
PYOPS_TARGET_END
#endif
