// Activations on float vectors, the same operations in the same order on every level (and in
// pyops/ops/epilogue.py), so that results are bit-equal. No fused multiply-add: the generic level
// has none. Include after a vec_*.inl.h.

// Coefficients from scripts/fit_polynomials.py, ascending powers.
constexpr float kExp[] = {0.5f, 0.166665733f, 0.0416668616f, 0.00836373959f, 0.00139015343f};
constexpr float kTail[] = {0.0997974798f, 0.0985168442f, 0.103746668f,  0.0329280756f, 0.201757684f,
                           -0.20578213f,  0.296120733f,  -0.152808726f, 0.0257233568f};

template <int kTerms>
inline F32 horner(F32 x, const float (&c)[kTerms]) {
  F32 value = set1(c[kTerms - 1]);
  PYOPS_UNROLL
  for (int i = kTerms - 2; i >= 0; --i) value = add(mul(value, x), set1(c[i]));
  return value;
}

// e^y for y >= -87.3, infinite above 88.37 (127.5 ln 2), where n becomes 128. y = n ln 2 + r (Cody
// and Waite), e^y = 2^n e^r.
inline F32 exp(F32 y) {
  y = min(set1(89.0f), max(set1(-87.3f), y));
  const F32 shifted = add(mul(y, set1(1.44269502162933349609375f)), set1(12582912.0f));
  const F32 n = sub(shifted, set1(12582912.0f));
  F32 r = sub(y, mul(n, set1(0.693359375f)));
  r = sub(r, mul(n, set1(-2.12194440e-4f)));
  const F32 p = add(add(mul(horner(r, kExp), mul(r, r)), r), set1(1.0f));
  const I32 n_bits = sub(as_i32(shifted), set1_i32(0x4b400000 - 127));
  return mul(p, as_f32(shift_left_23(n_bits)));
}

// x Phi(x), with Phi(-z) = exp(-z^2 / 2) t p(t) and t = 1 / (1 + z / 4).
inline F32 gelu(F32 x) {
  const F32 z = min(set1(14.0f), abs(x));
  const F32 t = div(set1(1.0f), add(mul(z, set1(0.25f)), set1(1.0f)));
  const F32 tail = mul(exp(mul(mul(z, z), set1(-0.5f))), mul(t, horner(t, kTail)));
  return sub(max(set1(0.0f), x), mul(z, tail));
}

inline F32 silu(F32 x) { return div(x, add(exp(sub(set1(-0.0f), x)), set1(1.0f))); }

inline F32 gelu_tanh(F32 x) {
  const F32 cubic = add(mul(mul(mul(x, x), x), set1(0.044715f)), x);
  return div(x, add(exp(mul(cubic, set1(-1.5957691216057308f))), set1(1.0f)));
}

template <Activation kActivation>
inline F32 activate(F32 v) {
  switch (kActivation) {
    case Activation::relu: return max(set1(0.0f), v);
    case Activation::gelu: return gelu(v);
    case Activation::gelu_tanh: return gelu_tanh(v);
    case Activation::silu: return silu(v);
    default: return v;
  }
}
