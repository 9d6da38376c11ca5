// 6 x 64 tile. zmm: 24 sums + a weight + the table of weights = 26 of 32; x comes from memory.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/weight_only/pack.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,prfchw")
namespace pyops::cpu::avx512 {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/weight_only/widen.inl.h"

constexpr int kMr = 6, kTileVecs = 4, kTileCols = kTileVecs * kLanes;

alignas(64) constexpr float kSigned[16] = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};

inline F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
inline F32 widen_codes(const uint8_t* p) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
}
// The lookup takes the low 4 bits of each lane as they are: no mask, and no conversion.
template <int kI>
inline F32 nibble(I32 words) {
  return lookup_16(kSigned, kI ? _mm512_srli_epi32(words, 4 * kI) : words);
}

#include "cpu/weight_only/block.inl.h"

}  // namespace

void weight_only_block(const WeightBlock& b) { block_of_tiles(b); }
bool widen_row(const WidenRow& row) { return widen_row_impl(row); }

}  // namespace pyops::cpu::avx512
PYOPS_TARGET_END
#endif
