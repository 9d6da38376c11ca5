// The kernel in vectors. Include after vec_<isa>.inl.h and fused_<isa>.inl.h, and after
//   kVecs              vectors of tokens in a chunk
//   sum_quad(a,b,c,d)  lanes 4 i ... 4 i + 3: sums over lanes 4 i ... 4 i + 3 of a, b, c and d
//   fold(v, out)       out[j] = sum over i of lane 4 i + j

constexpr int64_t kTokens = kVecs * kLanes;

inline void turn_lanes(const TokenBlock& b, int64_t token, int64_t col) {
  const float* from = b.from + token * b.ld + col;
  float* to = b.to + col * kTokens + token;
  F32 rows[kLanes];
  if (token + kLanes <= b.tokens && col + kLanes <= b.cols) {
    PYOPS_UNROLL
    for (int i = 0; i < kLanes; ++i) rows[i] = load(from + i * b.ld);
    transpose(rows);
    PYOPS_UNROLL
    for (int i = 0; i < kLanes; ++i) store(to + i * kTokens, rows[i]);
    return;
  }
  const int cols = static_cast<int>(min64(kLanes, b.cols - col));
  for (int i = 0; i < kLanes; ++i) {
    rows[i] = token + i < b.tokens ? load(from + i * b.ld, cols) : set1(0.0f);
  }
  transpose(rows);
  for (int i = 0; i < cols; ++i) store(to + i * kTokens, rows[i]);
}

inline void turn_block(const TokenBlock& b) {
  for (int64_t token = 0; token < b.tokens; token += kLanes) {
    for (int64_t col = 0; col < b.cols; col += kLanes) turn_lanes(b, token, col);
  }
}

// Rows of dy stand in an order that hardware does not foresee.
constexpr int64_t kRowsAhead = 4;

// kUsed: vectors that hold tokens.
template <int kUsed>
void multiply_rows(const MaskedProducts& p) {
  const MaskedSection& s = p.section;
  const uint8_t* depths = s.depths;
  float* sums = p.sums;
  for (int64_t r = 0; r < s.count; ++r) {
    const float* row = p.dy + s.rows[r].row * kTokens;
    F32 dy[kUsed];
    PYOPS_UNROLL
    for (int v = 0; v < kUsed; ++v) dy[v] = load(row + v * kLanes);
    const float* ahead = p.dy + s.rows[min64(r + kRowsAhead, s.count - 1)].row * kTokens;
    PYOPS_UNROLL
    for (int v = 0; v < kUsed; ++v) __builtin_prefetch(ahead + v * kLanes);
    for (int q = s.rows[r].quads; q > 0; --q, depths += kQuad, sums += kLanes) {
      F32 sum[kQuad];
      PYOPS_UNROLL
      for (int j = 0; j < kQuad; ++j) {
        const float* x = p.x + depths[j] * kTokens;
        sum[j] = mul(dy[0], load(x));
        PYOPS_UNROLL
        for (int v = 1; v < kUsed; ++v) sum[j] = fma(dy[v], load(x + v * kLanes), sum[j]);
      }
      F32 four = sum_quad(sum[0], sum[1], sum[2], sum[3]);
      if (!p.first) four = add(four, load(sums));
      store(sums, four);
    }
  }
}

inline void multiply_chunk(const MaskedProducts& p) {
  switch ((p.tokens + kLanes - 1) / kLanes) {
    case 1: return multiply_rows<1>(p);
    case 2: return multiply_rows<2>(p);
    case 3: return multiply_rows<3>(p);
    default: return multiply_rows<kVecs>(p);
  }
}

template <bool kAdd>
void finish_rows(const MaskedGrad& g) {
  const uint8_t* depths = g.section.depths;
  const float* sums = g.sums;
  float before[kMaskedDepth];
  for (int64_t r = 0; r < g.section.count; ++r) {
    float* out = g.grad + g.section.rows[r].row * g.ld;
    for (int64_t c = 0; c < g.section.cols; c += kLanes) {
      const int n = static_cast<int>(min64(kLanes, g.section.cols - c));
      if (kAdd) store(before + c, load(out + c, n), n);
      if (!kAdd) store(out + c, set1(0.0f), n);
    }
    for (int q = g.section.rows[r].quads; q > 0; --q, depths += kQuad, sums += kLanes) {
      float four[kQuad];
      fold(load(sums), four);
      // The last place of a row may be there several times, with one sum: written, not added,
      // twice.
      for (int j = 0; j < kQuad; ++j) {
        out[depths[j]] = kAdd ? before[depths[j]] + four[j] : four[j];
      }
    }
  }
}

inline void finish_section(const MaskedGrad& g) {
  return g.add ? finish_rows<true>(g) : finish_rows<false>(g);
}
