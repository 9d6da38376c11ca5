// Panels in plain C++: one lane. The kernel file provides kQuadsMr, kQuadsVecs, kWindowsMr and
// kWindowsVecs.

constexpr int kTilesAhead = kBlockRows;

inline I32 load_w(const int8_t* p) { return load_bits(p); }
inline I32 dot4(I32 acc, I32 a_u8, I32 w_s8) {
  uint8_t a[4];
  int8_t w[4];
  __builtin_memcpy(a, &a_u8, 4);
  __builtin_memcpy(w, &w_s8, 4);
  for (int i = 0; i < 4; ++i) acc = add(acc, a[i] * w[i]);
  return acc;
}
template <int kCodes>
inline const uint8_t* window_at(const uint8_t* p) {
  return p;
}
template <int kCodes>
inline I32 pick(const uint8_t* window, I32 at) {
  uint8_t from[4], picked[4];
  __builtin_memcpy(from, &at, 4);
  for (int i = 0; i < 4; ++i) picked[i] = window[from[i] % kCodes];
  return load_bits(picked);
}

#define PYOPS_AHEAD "cpu/int8_sparse_gemm/ahead_none.inl.h"
#include "cpu/int8_sparse_gemm/panels.inl.h"
#undef PYOPS_AHEAD
