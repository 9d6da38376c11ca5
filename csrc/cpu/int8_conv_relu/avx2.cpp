// vpmaddwd on widened codes: 2 taps of a channel at once, 32 channels in 4 vectors. ymm: 8 sums.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/int8_conv_relu/int8_conv_relu.h"

PYOPS_TARGET_BEGIN("avx2,f16c")
namespace pyops::cpu::avx2 {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"

constexpr int kWideVecs = 4, kPixels = 2;
constexpr int64_t kStripBytes = 12 * 1024;

inline I32 bit_xor(I32 a, I32 b) { return _mm256_xor_si256(a, b); }
inline I32 shift_left_s16(I32 a) { return _mm256_slli_epi16(a, 8); }
inline I32 shift_right_s16(I32 a) { return _mm256_srai_epi16(a, 8); }
inline I32 shift_right_u16(I32 a) { return _mm256_srli_epi16(a, 8); }
inline I32 madd(I32 a_s16, I32 b_s16) { return _mm256_madd_epi16(a_s16, b_s16); }

template <int kRows>
inline void interleave(const I32 (&r)[4], I32* to) {
  const I32 none = set1_i32(0);
  const I32 low_01 = _mm256_unpacklo_epi8(r[0], r[1]), high_01 = _mm256_unpackhi_epi8(r[0], r[1]);
  const I32 low_23 = kRows > 2 ? _mm256_unpacklo_epi8(r[2], r[3]) : none;
  const I32 high_23 = kRows > 2 ? _mm256_unpackhi_epi8(r[2], r[3]) : none;
  to[0] = _mm256_unpacklo_epi16(low_01, low_23);
  to[1] = _mm256_unpackhi_epi16(low_01, low_23);
  to[2] = _mm256_unpacklo_epi16(high_01, high_23);
  to[3] = _mm256_unpackhi_epi16(high_01, high_23);
}

template <bool kUnsigned>
inline I32 pack_wide(const I32 (&codes)[4], int32_t zero, int32_t low, int32_t high) {
  const __m256i zeros = _mm256_set1_epi16(static_cast<int16_t>(zero));
  const __m256i a = _mm256_adds_epi16(_mm256_packs_epi32(codes[0], codes[1]), zeros);
  const __m256i b = _mm256_adds_epi16(_mm256_packs_epi32(codes[2], codes[3]), zeros);
  const __m256i lows = _mm256_set1_epi8(static_cast<char>(low));
  const __m256i highs = _mm256_set1_epi8(static_cast<char>(high));
  __m256i q = kUnsigned ? _mm256_packus_epi16(a, b) : _mm256_packs_epi16(a, b);
  if constexpr (kUnsigned) {
    q = _mm256_min_epu8(_mm256_max_epu8(q, lows), highs);
  } else {
    q = _mm256_min_epi8(_mm256_max_epi8(q, lows), highs);
  }
  return q;
}

inline I32 load_pair(const uint8_t* p, const uint8_t* q) {
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
}
inline void store_codes_wide(uint8_t* p, I32 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}
template <int kHalf>
inline void store_half(uint8_t* p, I32 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_extracti128_si256(v, kHalf));
}

#include "cpu/int8_conv_relu/madd_taps.inl.h"
#include "cpu/int8_conv_relu/columns.inl.h"
#include "cpu/int8_conv_relu/depthwise.inl.h"

}  // namespace

int64_t int8_depthwise_scratch(const ConvShape& shape) { return scratch_of(shape); }
void int8_depthwise(const DepthwiseTask& task) { depthwise_impl(task); }

}  // namespace pyops::cpu::avx2
PYOPS_TARGET_END
#endif
