// The kernel in plain C++, for any number kTokens of tokens in a chunk.

inline void turn_block(const TokenBlock& b) {
  for (int64_t token = 0; token < b.tokens; ++token) {
    for (int64_t col = 0; col < b.cols; ++col) {
      b.to[col * kTokens + token] = b.from[token * b.ld + col];
    }
  }
}

inline void multiply_chunk(const MaskedProducts& p) {
  const uint8_t* depths = p.section.depths;
  float* sums = p.sums;
  for (int64_t r = 0; r < p.section.count; ++r) {
    const float* dy = p.dy + p.section.rows[r].row * kTokens;
    for (int i = p.section.rows[r].quads * kQuad; i > 0; --i, ++depths, ++sums) {
      const float* x = p.x + *depths * kTokens;
      float sum = p.first ? 0.0f : *sums;
      for (int64_t t = 0; t < p.tokens; ++t) sum += dy[t] * x[t];
      *sums = sum;
    }
  }
}

inline void finish_section(const MaskedGrad& g) {
  const uint8_t* depths = g.section.depths;
  const float* sums = g.sums;
  float before[kMaskedDepth];
  for (int64_t r = 0; r < g.section.count; ++r) {
    float* out = g.grad + g.section.rows[r].row * g.ld;
    for (int64_t c = 0; c < g.section.cols; ++c) {
      before[c] = g.add ? out[c] : 0.0f;
      out[c] = before[c];
    }
    // The last place of a row may be there several times, with one sum: written, not added, twice.
    for (int i = g.section.rows[r].quads * kQuad; i > 0; --i, ++depths, ++sums) {
      out[*depths] = before[*depths] + *sums;
    }
  }
}
