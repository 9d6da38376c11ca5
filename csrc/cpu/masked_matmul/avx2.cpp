// Chunks of 32 tokens. ymm: 4 of dy + 4 sums; x comes from memory.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/masked_matmul/masked_matmul.h"

PYOPS_TARGET_BEGIN("avx2,f16c,fma,prfchw")
namespace pyops::cpu::avx2::masked {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/fused_avx2.inl.h"

constexpr int kVecs = 4;

inline F32 sum_quad(F32 a, F32 b, F32 c, F32 d) {
  const F32 ab = add(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
  const F32 cd = add(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
  return add(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
}
inline void fold(F32 v, float* out) {
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)));
}

#include "cpu/masked_matmul/quads.inl.h"

}  // namespace

#include "cpu/masked_matmul/entries.inl.h"

}  // namespace pyops::cpu::avx2::masked
PYOPS_TARGET_END
#endif
