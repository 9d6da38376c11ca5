// 3 x 32 tile. ymm: 12 sums + a weight + a broadcast of x = 14 of 16.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/weight_only/pack.h"

PYOPS_TARGET_BEGIN("avx2,f16c,fma,prfchw")
namespace pyops::cpu::avx2 {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/weight_only/widen.inl.h"

constexpr int kMr = 3, kTileVecs = 4, kTileCols = kTileVecs * kLanes;

inline F32 fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
inline F32 widen_codes(const uint8_t* p) {
  const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
}
template <int kI>
inline F32 nibble(I32 words) {
  const I32 top = kI == 7 ? words : _mm256_slli_epi32(words, 28 - 4 * kI);
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(top, 28));
}

#include "cpu/weight_only/block.inl.h"

}  // namespace

void weight_only_block(const WeightBlock& b) { block_of_tiles(b); }
bool widen_row(const WidenRow& row) { return widen_row_impl(row); }

}  // namespace pyops::cpu::avx2
PYOPS_TARGET_END
#endif
