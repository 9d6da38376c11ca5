// Groups of four entries for levels that add four u8 * s8 products to an int32 lane at once. The
// kernel file provides bytes_low, bytes_high, halves_low, halves_high: the lower or upper 8 bytes
// of each 16, interleaved by bytes or by halves of 32 bits.
//
// Interleaving works within pieces of 16 bytes, and leaves the four codes of byte 4 * j + i of
// piece p in lane 4 * p + i of vector j: so that is where a row of the block has token
// j * kLanes + 4 * p + i.

constexpr int kRowBytes = kTokens;
using Codes = I32;
using Weights = I32;

constexpr int token_of(int piece, int byte) { return byte / 4 * kLanes + 4 * piece + byte % 4; }

template <int kFrom, int V>
inline void gather(const char* const (&rows)[4], Codes (&to)[V]) {
  constexpr int kEnd = kFrom + V;
  const I32 a = load_bits(rows[0]), b = load_bits(rows[1]);
  const I32 c = load_bits(rows[2]), d = load_bits(rows[3]);
  if constexpr (kFrom < 2) {
    const I32 ab = bytes_low(a, b), cd = bytes_low(c, d);
    if constexpr (kFrom == 0) to[0] = halves_low(ab, cd);
    if constexpr (kEnd > 1) to[1 - kFrom] = halves_high(ab, cd);
  }
  if constexpr (kEnd > 2) {
    const I32 ab = bytes_high(a, b), cd = bytes_high(c, d);
    if constexpr (kFrom < 3) to[2 - kFrom] = halves_low(ab, cd);
    if constexpr (kEnd > 3) to[3 - kFrom] = halves_high(ab, cd);
  }
}

// Not shuffles of one load: interleaving keeps those busy.
inline Weights load_weights(const char* p) { return set1_i32(read<int32_t>(p)); }
