// 64 channels at a time, in 4 vectors. A 128-bit lane of vector q holds the taps of 4 channels, and
// the packs of the epilogue put these back in order.

constexpr int kWideVecs = 4, kPixels = 4;
constexpr bool kSlides = true;
constexpr int64_t kStripBytes = 16 * 1024;

inline I32 bit_xor(I32 a, I32 b) { return _mm512_xor_si512(a, b); }

template <int kRows, bool kHigh>
inline void interleave_half(const I32 (&r)[4], I32* to) {
  const I32 none = set1_i32(0);
  const I32 third = kRows > 2 ? r[2] : none, fourth = kRows > 3 ? r[3] : none;
  const I32 first = kHigh ? _mm512_unpackhi_epi8(r[0], r[1]) : _mm512_unpacklo_epi8(r[0], r[1]);
  const I32 rest = kRows < 3 ? none
                   : kHigh   ? _mm512_unpackhi_epi8(third, fourth)
                             : _mm512_unpacklo_epi8(third, fourth);
  to[0] = _mm512_unpacklo_epi16(first, rest);
  to[1] = _mm512_unpackhi_epi16(first, rest);
}

inline I32 pack_half(const I32* codes, int32_t zero) {
  const __m512i zeros = _mm512_set1_epi16(static_cast<int16_t>(zero));
  return _mm512_adds_epi16(_mm512_packs_epi32(codes[0], codes[1]), zeros);
}
template <bool kUnsigned>
inline I32 pack_bytes(I32 low_half, I32 high_half, int32_t low, int32_t high) {
  const __m512i lows = _mm512_set1_epi8(static_cast<char>(low));
  const __m512i highs = _mm512_set1_epi8(static_cast<char>(high));
  if constexpr (kUnsigned) {
    const __m512i q = _mm512_packus_epi16(low_half, high_half);
    return _mm512_min_epu8(_mm512_max_epu8(q, lows), highs);
  } else {
    const __m512i q = _mm512_packs_epi16(low_half, high_half);
    return _mm512_min_epi8(_mm512_max_epi8(q, lows), highs);
  }
}

inline I32 load_pair(const uint8_t* p, const uint8_t* q) {
  const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
  return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}
inline void store_codes_wide(uint8_t* p, I32 v) { _mm512_storeu_si512(p, v); }
template <int kHalf>
inline void store_half(uint8_t* p, I32 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_extracti64x4_epi64(v, kHalf));
}
