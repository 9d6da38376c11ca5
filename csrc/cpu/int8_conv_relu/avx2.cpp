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
constexpr bool kSlides = false;
constexpr int64_t kStripBytes = 12 * 1024;

inline I32 bit_xor(I32 a, I32 b) { return _mm256_xor_si256(a, b); }
inline I32 shift_left_s16(I32 a) { return _mm256_slli_epi16(a, 8); }
inline I32 shift_right_s16(I32 a) { return _mm256_srai_epi16(a, 8); }
inline I32 shift_right_u16(I32 a) { return _mm256_srli_epi16(a, 8); }
inline I32 madd(I32 a_s16, I32 b_s16) { return _mm256_madd_epi16(a_s16, b_s16); }

template <int kRows, bool kHigh>
inline void interleave_half(const I32 (&r)[4], I32* to) {
  const I32 none = set1_i32(0);
  const I32 third = kRows > 2 ? r[2] : none, fourth = kRows > 3 ? r[3] : none;
  const I32 first = kHigh ? _mm256_unpackhi_epi8(r[0], r[1]) : _mm256_unpacklo_epi8(r[0], r[1]);
  const I32 rest = kRows < 3 ? none
                   : kHigh   ? _mm256_unpackhi_epi8(third, fourth)
                             : _mm256_unpacklo_epi8(third, fourth);
  to[0] = _mm256_unpacklo_epi16(first, rest);
  to[1] = _mm256_unpackhi_epi16(first, rest);
}

inline I32 pack_half(const I32* codes, int32_t zero) {
  const __m256i zeros = _mm256_set1_epi16(static_cast<int16_t>(zero));
  return _mm256_adds_epi16(_mm256_packs_epi32(codes[0], codes[1]), zeros);
}
template <bool kUnsigned>
inline I32 pack_bytes(I32 low_half, I32 high_half, int32_t low, int32_t high) {
  const __m256i lows = _mm256_set1_epi8(static_cast<char>(low));
  const __m256i highs = _mm256_set1_epi8(static_cast<char>(high));
  if constexpr (kUnsigned) {
    const __m256i q = _mm256_packus_epi16(low_half, high_half);
    return _mm256_min_epu8(_mm256_max_epu8(q, lows), highs);
  } else {
    const __m256i q = _mm256_packs_epi16(low_half, high_half);
    return _mm256_min_epi8(_mm256_max_epi8(q, lows), highs);
  }
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
