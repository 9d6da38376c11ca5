// fused_avx512.inl.h in 8 lanes; vec_avx2.inl.h stands before this in the same region.

inline F32 fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
inline float reduce_add(F32 a) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
inline F32 keep_first(F32 v, int n, F32 other) {
  const I32 lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_blendv_ps(other, v, as_f32(_mm256_cmpgt_epi32(set1_i32(n), lane)));
}

template <int kTerms>
inline F32 exp2(F32 t) {
  t = max(set1(-127.0f), t);  // 2^-127 comes out as 0: its exponent field is
  const F32 n = _mm256_floor_ps(t);
  const F32 r = sub(t, n);
  F32 p = set1(kExp2<kTerms>[kTerms - 1]);
  PYOPS_UNROLL
  for (int i = kTerms - 2; i >= 0; --i) p = fma(p, r, set1(kExp2<kTerms>[i]));
  return mul(p, as_f32(shift_left<23>(add(to_i32(n), set1_i32(127)))));
}

inline void transpose(F32 (&rows)[kLanes]) {
  F32 pairs[kLanes], quads[kLanes];
  PYOPS_UNROLL
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
  PYOPS_UNROLL
  for (int i = 0; i < 8; i += 4) {
    PYOPS_UNROLL
    for (int j = 0; j < 2; ++j) {
      quads[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
      quads[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
    }
  }
  PYOPS_UNROLL
  for (int j = 0; j < 4; ++j) {
    rows[j] = _mm256_permute2f128_ps(quads[j], quads[j + 4], 0x20);
    rows[j + 4] = _mm256_permute2f128_ps(quads[j], quads[j + 4], 0x31);
  }
}
