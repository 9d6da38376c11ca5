// What the float kernels with fused multiply-adds need beside vec_avx512.inl.h, which stands before
// this in the same region.
//
// fma(a, b, c) = a * b + c, rounded once where the level has the instruction.
// keep_first(v, n, other): v in the first n lanes, other in the rest.
// transpose(rows): lane j of vector i goes to lane i of vector j.
// exp2<terms>(t): 2^t for t <= 127, by a polynomial of so many terms (exp2.h); 0 from t = -150 on,
// also for -infinity; NaN for NaN.

inline F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
inline float reduce_add(F32 a) { return _mm512_reduce_add_ps(a); }
inline F32 keep_first(F32 v, int n, F32 other) { return _mm512_mask_mov_ps(other, first(n), v); }

template <int kTerms>
inline F32 exp2(F32 t) {
  const F32 r = _mm512_reduce_ps(t, 9);  // t - floor(t), no exceptions; 0 for infinities
  F32 p = set1(kExp2<kTerms>[kTerms - 1]);
  PYOPS_UNROLL
  for (int i = kTerms - 2; i >= 0; --i) p = fma(p, r, set1(kExp2<kTerms>[i]));
  return _mm512_scalef_ps(p, t);  // p * 2^floor(t)
}

// A group of lanes of four rows at a time, then the groups.
inline void transpose(F32 (&rows)[kLanes]) {
  F32 pairs[kLanes], quads[kLanes];
  PYOPS_UNROLL
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  PYOPS_UNROLL
  for (int i = 0; i < 16; i += 4) {
    PYOPS_UNROLL
    for (int j = 0; j < 2; ++j) {
      const __m512d low = _mm512_castps_pd(pairs[i + j]);
      const __m512d high = _mm512_castps_pd(pairs[i + j + 2]);
      quads[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      quads[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  PYOPS_UNROLL
  for (int j = 0; j < 4; ++j) {
    const F32 even_low = _mm512_shuffle_f32x4(quads[j], quads[j + 4], 0x88);
    const F32 even_high = _mm512_shuffle_f32x4(quads[j + 8], quads[j + 12], 0x88);
    const F32 odd_low = _mm512_shuffle_f32x4(quads[j], quads[j + 4], 0xdd);
    const F32 odd_high = _mm512_shuffle_f32x4(quads[j + 8], quads[j + 12], 0xdd);
    rows[j] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
    rows[j + 4] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
    rows[j + 8] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
    rows[j + 12] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
  }
}
