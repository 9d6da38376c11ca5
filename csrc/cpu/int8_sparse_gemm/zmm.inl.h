// Products of codes on 64-byte vectors, but for few rows. Include after items.inl.h.

constexpr int kTokens = 64, kQuadVecs = 4, kPieces = 4;

// One instruction where row_of takes a copy, a shift and a cut: how many instructions can begin in
// a cycle bounds the kernel as much as what they do.
template <int kWhich>
inline const char* row_at(const char* x, uint64_t at) {
  if (kWhich == 0 || kWhich == 3) return row_of(x, at, kWhich);
  return x + _bextr_u64(at, 16 * kWhich, 16);
}

inline I32 bytes_low(I32 a, I32 b) { return _mm512_unpacklo_epi8(a, b); }
inline I32 bytes_high(I32 a, I32 b) { return _mm512_unpackhi_epi8(a, b); }
inline I32 halves_low(I32 a, I32 b) { return _mm512_unpacklo_epi16(a, b); }
inline I32 halves_high(I32 a, I32 b) { return _mm512_unpackhi_epi16(a, b); }
inline I32 flip(I32 codes, I32 bits) { return _mm512_xor_si512(codes, bits); }
inline I32 dot4(I32 acc, I32 codes, I32 w) { return _mm512_dpbusd_epi32(acc, codes, w); }

inline __m128i load_codes(const uint8_t* p, int count) {
  if (count == 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << count) - 1), p);
}
inline I32 join(const __m128i (&pieces)[kPieces]) {
  I32 v = _mm512_castsi128_si512(pieces[0]);
  v = _mm512_mask_broadcast_i32x4(v, 0x00f0, pieces[1]);
  v = _mm512_mask_broadcast_i32x4(v, 0x0f00, pieces[2]);
  return _mm512_mask_broadcast_i32x4(v, 0xf000, pieces[3]);
}
inline void store_row(char* to, I32 codes) { _mm512_storeu_si512(to, codes); }

#include "cpu/int8_sparse_gemm/dot.inl.h"

#include "cpu/int8_sparse_gemm/lanes.inl.h"
#include "cpu/int8_sparse_gemm/tokens.inl.h"
