// Codes in plain C++, one lane at a time; the kernel file provides kTokens.

constexpr int kQuadVecs = kTokens, kRowBytes = kTokens;

struct Codes {
  int32_t code[4];
};
struct Weights {
  int32_t w[4];
};

template <int kWhich>
inline const char* row_at(const char* x, uint64_t at) {
  return row_of(x, at, kWhich);
}

template <int kFrom, int V>
inline void gather(const char* const (&rows)[4], Codes (&to)[V]) {
  for (int v = 0; v < V; ++v) {
    for (int i = 0; i < 4; ++i) to[v].code[i] = static_cast<uint8_t>(rows[i][kFrom + v]);
  }
}

inline I32 dot4(I32 acc, const Codes& codes, const Weights& w) {
  for (int i = 0; i < 4; ++i) acc = add(acc, codes.code[i] * w.w[i]);
  return acc;
}

inline Weights load_weights(const char* p) {
  Weights four;
  for (int i = 0; i < 4; ++i) four.w[i] = static_cast<int8_t>(p[i]);
  return four;
}

inline void transpose_block(const SparseTokens& t) {
  const uint8_t flip = t.type == Dtype::s8 ? 128 : 0;
  uint8_t* out = static_cast<uint8_t*>(t.out);
  for (int64_t k = t.k0; k < t.k1; ++k, out += kTokens) {
    for (int i = 0; i < t.tokens; ++i) {
      out[i] = static_cast<const uint8_t*>(t.rows[i])[t.offset + k] ^ flip;
    }
  }
}
