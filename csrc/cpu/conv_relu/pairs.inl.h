// Gathered tiles of bf16, for the levels that multiply pairs. Include after vec_avx512.inl.h.

inline __mmask32 first_16_bits(int64_t n) {
  return static_cast<__mmask32>(n >= 32 ? ~0u : (1u << n) - 1);
}

// A vector is stored as a whole wherever it ends within the pixel: what is behind the segment is
// written by the next one, or is the zeros behind the last.
inline void gather_pairs(const ConvGather& g) {
  for (int r = 0; r < g.pixels; ++r) {
    uint16_t* out = static_cast<uint16_t*>(g.out) + r * g.ld;
    const uint16_t* end = out + g.ld;
    for (int64_t s = 0; s < g.segments; ++s, out += g.depth) {
      const uint16_t* from = static_cast<const uint16_t*>(g.rows[s * g.pixels + r]) + g.offset;
      for (int64_t d = 0; d < g.depth; d += 32) {
        const __mmask32 mask = first_16_bits(g.depth - d);
        const __m512i values = _mm512_maskz_loadu_epi16(mask, from + d);
        if (out + d + 32 <= end) {
          _mm512_storeu_si512(out + d, values);
        } else {
          _mm512_mask_storeu_epi16(out + d, mask, values);
        }
      }
    }
    while (out < end) {
      const int64_t rest = end - out < 32 ? end - out : 32;
      _mm512_mask_storeu_epi16(out, first_16_bits(rest), _mm512_setzero_si512());
      out += rest;
    }
  }
}
