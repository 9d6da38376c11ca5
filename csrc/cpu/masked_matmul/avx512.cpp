// Chunks of 64 tokens. zmm: 4 of dy + 4 sums; x comes from memory. Two loads a cycle bind: two
// cycles for a place and 64 tokens; what reduces the sums runs beside them.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/masked_matmul/masked_matmul.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,prfchw")
namespace pyops::cpu::avx512::masked {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"

constexpr int kVecs = 4;

inline F32 sum_quad(F32 a, F32 b, F32 c, F32 d) {
  const F32 ab = add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const F32 cd = add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  return add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
}
inline void fold(F32 v, float* out) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

#include "cpu/masked_matmul/quads.inl.h"

}  // namespace

#include "cpu/masked_matmul/entries.inl.h"

}  // namespace pyops::cpu::avx512::masked
PYOPS_TARGET_END
#endif
