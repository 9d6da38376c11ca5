// The cut weight: what lets vpmaddubsw, which adds two u8 * s8 products into a saturating int16,
// stay exact for every input. Only pack.cpp includes this.
//
// A pair of weights (t0, t1) is safe when its positive weights sum to at most 128, and its negative
// ones to at least -128: 255 * 128 fits an int16. Any other pair is cut: its larger weight t
// becomes a smaller t', and the rest goes into a list of Excess, which the kernel adds one by one.
// Even of weights from a normal distribution that fill the int8 range, too many pairs are not safe.
//
// So each group of 4 codes is written as two strings of 8 bytes, in which ten windows of four bytes
// hold each code once, as it is or as 255 - a. They differ in which codes make a pair, and in which
// of its signs are opposite. The columns of a panel share the window that leaves them least to cut.
//
//        byte   0   1   2   3   4   5   6   7    8   9  10  11  12  13  14  15
//        code  a0  a1  a2  a3  a0  a1' a2  a3'  a0  a2  a1  a3  a0' a2  a1' a3       a' = 255 - a
//   window 0  [w0  w1  w2  w3]                               pairs (w0, w1), (w2, w3)
//   window 3              [w3  w0 -w1  w2]                   pairs (w3, w0), (-w1, w2)
//   window 12                                 [-w0  w2 -w1  w3]    pairs (-w0, w2), (-w1, w3)
//
// With (255 - a) * t = 255 t - a t  the sum starts from -255 * (all such t'). What is still cut,
// a small part of the pairs that were not safe, is w - t' or w + t', times a itself.
#pragma once
#include <cstring>

#include "cpu/int8_gemm/int8_gemm.h"

namespace pyops::cpu {

constexpr int kPairLimit = 128;
constexpr int kMaxCutCols = 16;  // columns of a panel
constexpr int kWindows[] = {0, 1, 2, 3, 4, 8, 9, 10, 11, 12};

// The k of a byte of the strings, and whether its code is 255 - a.
constexpr int string_k(int byte) {
  const int i = byte % 4;
  return byte >= 8 && (i == 1 || i == 2) ? 3 - i : i;
}
constexpr bool string_flips(int byte) { return byte == 5 || byte == 7 || byte == 12 || byte == 14; }

// The 16 bytes of four codes. In words, for the speed of int8_gemm; the bytes of a word are in
// order on every CPU that has a cut kernel.
inline void write_strings(const uint8_t* code, uint8_t* to) {
  uint32_t four;
  std::memcpy(&four, code, 4);
  const uint32_t swapped = (four & 0xff0000ffu) | (four & 0xff00u) << 8 | (four >> 8 & 0xff00u);
  const uint32_t words[4] = {four, four ^ 0xff00ff00u, swapped, swapped ^ 0x00ff00ffu};
  std::memcpy(to, words, 16);
}

// Four k of each column of a panel, by k; zeros where there is none.
struct CutGroup {
  int16_t w[4][kMaxCutCols];
};

// A pair as a window has it, before the cut. Only one of the two can be 128, from a flipped -128.
inline int positive(int t) { return t > 0 ? t : 0; }
inline bool too_high(int t0, int t1) {
  return positive(t0) + positive(t1) > kPairLimit || t0 > 127 || t1 > 127;
}
inline bool too_low(int t0, int t1) { return positive(-t0) + positive(-t1) > kPairLimit; }

// Shrinks the larger weight of a pair that is not safe: one Excess if it is too high, or too low.
inline void cut_pair(int* t0, int* t1) {
  if (too_high(*t0, *t1)) {
    int* larger = *t0 >= *t1 ? t0 : t1;
    const int room = kPairLimit - positive(larger == t0 ? *t1 : *t0);
    *larger = room < 127 ? room : 127;
  } else if (too_low(*t0, *t1)) {
    int* larger = *t0 <= *t1 ? t0 : t1;
    *larger = positive(larger == t0 ? -*t1 : -*t0) - kPairLimit;
  }
}

// Four weights of one column in a window, cut: the bytes to store, and w - (what they stand for).
struct CutFour {
  int8_t stored[4];
  int excess[4];  // by k
};

inline CutFour cut_four(const CutGroup& group, int64_t col, int window) {
  CutFour out;
  for (int pair = window; pair < window + 4; pair += 2) {
    const int k0 = string_k(pair), k1 = string_k(pair + 1);
    const int sign0 = string_flips(pair) ? -1 : 1, sign1 = string_flips(pair + 1) ? -1 : 1;
    int t0 = sign0 * group.w[k0][col], t1 = sign1 * group.w[k1][col];
    cut_pair(&t0, &t1);
    out.stored[pair - window] = static_cast<int8_t>(t0);
    out.stored[pair - window + 1] = static_cast<int8_t>(t1);
    out.excess[k0] = group.w[k0][col] - sign0 * t0;
    out.excess[k1] = group.w[k1][col] - sign1 * t1;
  }
  return out;
}

// How many Excess a window leaves, in 16-bit arithmetic over all columns, for the vectorizer.
inline int count_excess(const CutGroup& group, int window) {
  int16_t count[kMaxCutCols] = {};
  for (int pair = window; pair < window + 4; pair += 2) {
    const int16_t* w0 = group.w[string_k(pair)];
    const int16_t* w1 = group.w[string_k(pair + 1)];
    const int16_t sign0 = string_flips(pair) ? -1 : 1, sign1 = string_flips(pair + 1) ? -1 : 1;
    for (int col = 0; col < kMaxCutCols; ++col) {
      const int16_t t0 = static_cast<int16_t>(sign0 * w0[col]);
      const int16_t t1 = static_cast<int16_t>(sign1 * w1[col]);
      const int16_t p0 = t0 > 0 ? t0 : 0, p1 = t1 > 0 ? t1 : 0;
      const int16_t high = static_cast<int16_t>(p0 + p1), sum = static_cast<int16_t>(t0 + t1);
      const int16_t low = static_cast<int16_t>(high - sum), top = p0 > p1 ? p0 : p1;
      const int16_t most = high > low ? high : low;
      count[col] = static_cast<int16_t>(count[col] + ((most > kPairLimit) | (top > 127)));
    }
  }
  int total = 0;
  for (const int16_t each : count) total += each;
  return total;
}

// The first window with the least to cut; *count: how much that is.
inline int best_window(const CutGroup& group, int* count) {
  int best = 0;
  *count = count_excess(group, 0);
  for (const int window : kWindows) {
    if (*count == 0) break;
    const int other = count_excess(group, window);
    if (other < *count) best = window, *count = other;
  }
  return best;
}

}  // namespace pyops::cpu
