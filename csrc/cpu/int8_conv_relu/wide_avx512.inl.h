// 64 channels at a time, in 4 vectors. A 128-bit lane of vector q holds the taps of 4 channels, and
// the packs of the epilogue put these back in order.

constexpr int kWideVecs = 4, kPixels = 4;
constexpr int64_t kStripBytes = 16 * 1024;

inline I32 bit_xor(I32 a, I32 b) { return _mm512_xor_si512(a, b); }

template <int kRows>
inline void interleave(const I32 (&r)[4], I32* to) {
  const I32 none = set1_i32(0);
  const I32 low_01 = _mm512_unpacklo_epi8(r[0], r[1]), high_01 = _mm512_unpackhi_epi8(r[0], r[1]);
  const I32 low_23 = kRows > 2 ? _mm512_unpacklo_epi8(r[2], r[3]) : none;
  const I32 high_23 = kRows > 2 ? _mm512_unpackhi_epi8(r[2], r[3]) : none;
  to[0] = _mm512_unpacklo_epi16(low_01, low_23);
  to[1] = _mm512_unpackhi_epi16(low_01, low_23);
  to[2] = _mm512_unpacklo_epi16(high_01, high_23);
  to[3] = _mm512_unpackhi_epi16(high_01, high_23);
}

template <bool kUnsigned>
inline I32 pack_wide(const I32 (&codes)[4], int32_t zero, int32_t low, int32_t high) {
  const __m512i zeros = _mm512_set1_epi16(static_cast<int16_t>(zero));
  const __m512i a = _mm512_adds_epi16(_mm512_packs_epi32(codes[0], codes[1]), zeros);
  const __m512i b = _mm512_adds_epi16(_mm512_packs_epi32(codes[2], codes[3]), zeros);
  const __m512i lows = _mm512_set1_epi8(static_cast<char>(low));
  const __m512i highs = _mm512_set1_epi8(static_cast<char>(high));
  __m512i q = kUnsigned ? _mm512_packus_epi16(a, b) : _mm512_packs_epi16(a, b);
  if constexpr (kUnsigned) {
    q = _mm512_min_epu8(_mm512_max_epu8(q, lows), highs);
  } else {
    q = _mm512_min_epi8(_mm512_max_epi8(q, lows), highs);
  }
  return q;
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
