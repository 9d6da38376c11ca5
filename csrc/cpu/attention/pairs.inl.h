// Pairs of bf16 in dwords, for the levels that multiply them. Include behind values.inl.h and
// softmax.inl.h.

struct Bf16Pairs {
  using T = uint16_t;
  static F32 depth(const T* p, int64_t n) {
    const auto mask = static_cast<__mmask32>(n >= 32 ? ~0u : (1u << n) - 1);
    return as_f32(_mm512_maskz_loadu_epi16(mask, p));
  }
  static F32 keys(const T* a, const T* b, int n) {
    const I32 low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), a));
    if (b == nullptr) return as_f32(low);
    const I32 high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), b));
    return as_f32(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
};

// Weights as pairs of adjacent keys, over the scores that they come from: each is written behind
// the place that is read. Bf16 rounds by up to 2^-9, so an exponential within 7.5e-5 will do.
struct PairWeights {
  static constexpr int kVecs = 2, kTerms = 4;
  static void put(float* row, int64_t j, const F32 (&e)[2]) {
    _mm512_storeu_si512(row + j / 2, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(e[1], e[0])));
  }
};
