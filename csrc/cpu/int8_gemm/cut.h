// The cut weight: what lets vpmaddubsw, which adds two u8 * s8 products into a saturating int16,
// stay exact for every input. Only pack.cpp includes this.
//
// A pair of weights (t0, t1) is safe when its positive weights sum to at most 128, and its negative
// ones to at least -128: 255 * 128 fits an int16. Any other pair is cut: its larger weight t
// becomes a smaller t', and the rest goes into a list of Excess, which the kernel adds one by one.
// Of weights from a normal distribution that fill the int8 range, 1 to 4 % of the pairs are not
// safe: too many. So each group of 4 codes is written as a string of 11 bytes, in which eight
// windows of four bytes hold each code once, as it is or as 255 - a; this pairs it with either
// neighbour and in either sign. The columns of a panel share the window that leaves them least to
// cut.
//
//             byte  0   1   2   3   4   5   6   7   8   9  10
//             code  a0  a1  a2  a3  a0  a1' a2  a3' a0  a1  a2         a' = 255 - a
//   window 0        [w0  w1  w2  w3]                                   pairs (w0, w1), (w2, w3)
//   window 3                    [w3  w0 -w1  w2]                       pairs (w3, w0), (-w1, w2)
//   window 7                                    [-w3  w0  w1  w2]      pairs (-w3, w0), (w1, w2)
//
// With (255 - a) * t = 255 t - a t  the sum starts from -255 * (all such t'). What is still cut,
// one pair in 7 to 30 of those that were not safe, is w - t' or w + t', times a itself.
#pragma once
#include "cpu/int8_gemm/int8_gemm.h"

namespace pyops::cpu {

constexpr int kVariants = 8, kStringBytes = 11, kPairLimit = 128;
constexpr int kMaxCutCols = 16;  // columns of a panel

// The k of byte i of a window, and whether its code is 255 - a.
constexpr int variant_k(int variant, int i) { return (variant + i) % 4; }
constexpr bool variant_flips(int variant, int i) { return variant + i == 5 || variant + i == 7; }

// The string of four codes, padded to 16 bytes.
inline void write_string(const uint8_t* code, uint8_t* to) {
  for (int i = 0; i < 16; ++i) {
    const uint8_t a = i < kStringBytes ? code[i % 4] : 0;
    to[i] = variant_flips(0, i) ? static_cast<uint8_t>(255 - a) : a;
  }
}

// Makes a pair safe by shrinking its larger weight; no weight passes 127, so that all fit int8.
inline void cut_pair(int* t0, int* t1) {
  *t0 = *t0 > 127 ? 127 : *t0;
  *t1 = *t1 > 127 ? 127 : *t1;
  const int above = (*t0 > 0 ? *t0 : 0) + (*t1 > 0 ? *t1 : 0) - kPairLimit;
  const int below = (*t0 < 0 ? -*t0 : 0) + (*t1 < 0 ? -*t1 : 0) - kPairLimit;
  if (above > 0) *(*t0 >= *t1 ? t0 : t1) -= above;
  if (below > 0) *(*t0 <= *t1 ? t0 : t1) += below;
}

// Four weights of one column in a variant, cut: the bytes to store, and w - (what they stand for).
struct CutFour {
  int8_t stored[4];
  int excess[4];  // by k
};

inline CutFour cut_four(const int8_t* w, int variant) {
  CutFour out;
  for (int pair = 0; pair < 4; pair += 2) {
    const int k0 = variant_k(variant, pair), k1 = variant_k(variant, pair + 1);
    const int sign0 = variant_flips(variant, pair) ? -1 : 1;
    const int sign1 = variant_flips(variant, pair + 1) ? -1 : 1;
    int t0 = sign0 * w[k0], t1 = sign1 * w[k1];
    cut_pair(&t0, &t1);
    out.stored[pair] = static_cast<int8_t>(t0);
    out.stored[pair + 1] = static_cast<int8_t>(t1);
    out.excess[k0] = w[k0] - sign0 * t0;
    out.excess[k1] = w[k1] - sign1 * t1;
  }
  return out;
}

inline int count_excess(const int8_t (*w)[4], int64_t cols, int variant) {
  int count = 0;
  for (int64_t col = 0; col < cols; ++col) {
    const CutFour four = cut_four(w[col], variant);
    for (const int excess : four.excess) count += excess != 0;
  }
  return count;
}

// The first variant with the least to cut for `cols` columns; *count: how much that is.
inline int best_variant(const int8_t (*w)[4], int64_t cols, int* count) {
  int best = 0;
  *count = count_excess(w, cols, 0);
  for (int variant = 1; variant<kVariants&& * count> 0; ++variant) {
    const int other = count_excess(w, cols, variant);
    if (other < *count) best = variant, *count = other;
  }
  return best;
}

}  // namespace pyops::cpu
