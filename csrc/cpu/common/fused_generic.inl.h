// fused_avx512.inl.h in one lane and plain C++, so with two roundings; vec_generic.inl.h stands
// before this.

inline F32 fma(F32 a, F32 b, F32 c) { return a * b + c; }
inline float reduce_add(F32 a) { return a; }
inline F32 keep_first(F32 v, int n, F32 other) { return n > 0 ? v : other; }

template <int kTerms>
inline F32 exp2(F32 t) {
  t = max(set1(-127.0f), t);  // 2^-127 comes out as 0: its exponent field is
  if (t != t) return t;       // NaN, which has no integer part
  I32 n = to_i32(t);
  if (to_f32(n) > t) n -= 1;
  const F32 r = t - to_f32(n);
  F32 p = kExp2<kTerms>[kTerms - 1];
  for (int i = kTerms - 2; i >= 0; --i) p = fma(p, r, kExp2<kTerms>[i]);
  return p * as_f32(shift_left<23>(n + 127));
}

inline void transpose(F32 (&)[kLanes]) {}
