// Codes of some tokens by some k, transposed, for levels with vectors. The kernel file provides
//
//   kPieces                        16-byte parts of a vector
//   int token_of(piece, byte)      whose code stands there in a row of the block: that order in
//                                  which gather finds it
//   I32 join(const __m128i (&pieces)[kPieces])
//   __m128i load_codes(const uint8_t* p, int count)       count <= 16, zeros behind
//   I32 bytes_low(a, b), bytes_high(a, b)    the lower or upper 8 bytes of each piece, interleaved
//   I32 flip(I32 codes, I32 bits)
//   void store_row(char* to, I32 codes)

constexpr int kDepth = 16;  // values of k at once

inline void mix(const I32 (&from)[kDepth], I32 (&to)[kDepth]) {
  PYOPS_UNROLL
  for (int i = 0; i < kDepth / 2; ++i) {
    to[2 * i] = bytes_low(from[i], from[i + kDepth / 2]);
    to[2 * i + 1] = bytes_high(from[i], from[i + kDepth / 2]);
  }
}

// In each piece byte i of vector j goes to byte j of vector i.
inline void transpose_pieces(I32 (&rows)[kDepth]) {
  I32 other[kDepth];
  mix(rows, other);
  mix(other, rows);
  mix(rows, other);
  mix(other, rows);
}

// kWhole: count is kDepth.
template <bool kWhole>
inline void transpose_codes(const uint8_t* const* rows, int64_t at, int count, I32 bits,
                            char* out) {
  I32 vecs[kDepth];
  PYOPS_UNROLL
  for (int i = 0; i < kDepth; ++i) {
    __m128i pieces[kPieces];
    PYOPS_UNROLL
    for (int j = 0; j < kPieces; ++j) {
      pieces[j] = load_codes(rows[token_of(j, i)] + at, kWhole ? kDepth : count);
    }
    vecs[i] = join(pieces);
  }
  transpose_pieces(vecs);
  PYOPS_UNROLL
  for (int i = 0; i < kDepth; ++i) {
    if (kWhole || i < count) store_row(out + i * kRowBytes, flip(vecs[i], bits));
  }
}

// Of one segment, all tokens of a tile.
inline void transpose_block(const SparseTokens& t) {
  const uint8_t* rows[kTokens];
  for (int i = 0; i < kTokens; ++i) {
    const void* row = t.rows[i < t.tokens ? i : t.tokens - 1];
    rows[i] = static_cast<const uint8_t*>(row) + t.offset;
  }
  const I32 bits = set1_i32(t.type == Dtype::s8 ? static_cast<int32_t>(0x80808080u) : 0);
  char* out = static_cast<char*>(t.out);
  int64_t k = t.k0;
  for (; k + kDepth <= t.k1; k += kDepth, out += kDepth * kRowBytes) {
    transpose_codes<true>(rows, k, kDepth, bits, out);
  }
  if (k < t.k1) transpose_codes<false>(rows, k, static_cast<int>(t.k1 - k), bits, out);
}
