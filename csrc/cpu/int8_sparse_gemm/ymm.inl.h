// What codes need of 32-byte vectors.

template <int kWhich>
inline const char* row_at(const char* x, uint64_t at) {
  return row_of(x, at, kWhich);
}

inline I32 bytes_low(I32 a, I32 b) { return _mm256_unpacklo_epi8(a, b); }
inline I32 bytes_high(I32 a, I32 b) { return _mm256_unpackhi_epi8(a, b); }
inline I32 halves_low(I32 a, I32 b) { return _mm256_unpacklo_epi16(a, b); }
inline I32 halves_high(I32 a, I32 b) { return _mm256_unpackhi_epi16(a, b); }
inline I32 flip(I32 codes, I32 bits) { return _mm256_xor_si256(codes, bits); }

constexpr int kPieces = 2;

inline __m128i load_codes(const uint8_t* p, int count) {
  if (count == 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  alignas(16) uint8_t codes[16] = {};
  for (int i = 0; i < count; ++i) codes[i] = p[i];
  return _mm_load_si128(reinterpret_cast<const __m128i*>(codes));
}
inline I32 join(const __m128i (&pieces)[kPieces]) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(pieces[0]), pieces[1], 1);
}
