// Gathered tiles of bf16, for the levels that multiply pairs. Include after vec_avx512.inl.h.

inline __mmask32 first_16_bits(int64_t n) {
  return static_cast<__mmask32>(n >= 32 ? ~0u : (1u << n) - 1);
}

// A vector is stored as a whole wherever it ends within the pixel: what is behind the segment is
// written by the next one, or is the zeros behind the last.
inline void store_pairs(uint16_t* out, const uint16_t* end, __mmask32 mask, __m512i values) {
  if (out + 32 <= end) {
    _mm512_storeu_si512(out, values);
  } else {
    _mm512_mask_storeu_epi16(out, mask, values);
  }
}

// The lines of taps of an image of few channels are a vector each.
template <bool kShort>
inline void gather_segments(const ConvGather& g) {
  const __mmask32 all = first_16_bits(g.depth);
  for (int r = 0; r < g.pixels; ++r) {
    uint16_t* out = static_cast<uint16_t*>(g.out) + r * g.ld;
    const uint16_t* end = out + g.ld;
    const void* const* row = g.rows + r;
    for (int64_t s = 0; s < g.segments; ++s, out += g.depth, row += g.pixels) {
      const uint16_t* from = static_cast<const uint16_t*>(*row) + g.offset;
      if constexpr (kShort) {
        store_pairs(out, end, all, _mm512_maskz_loadu_epi16(all, from));
        continue;
      }
      for (int64_t d = 0; d < g.depth; d += 32) {
        const __mmask32 mask = first_16_bits(g.depth - d);
        store_pairs(out + d, end, mask, _mm512_maskz_loadu_epi16(mask, from + d));
      }
    }
    while (out < end) {
      const int64_t rest = end - out < 32 ? end - out : 32;
      _mm512_mask_storeu_epi16(out, first_16_bits(rest), _mm512_setzero_si512());
      out += rest;
    }
  }
}

inline void gather_pairs(const ConvGather& g) {
  g.depth <= 32 ? gather_segments<true>(g) : gather_segments<false>(g);
}
