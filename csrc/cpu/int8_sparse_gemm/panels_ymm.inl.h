// Panels on 32-byte vectors, by tiles of 6 x 16 (quads) and 3 x 16 (windows: 6 sums, 2 of w, 2 of
// picks, 2 of x). The kernel file provides dot4.

constexpr int kQuadsMr = 6, kQuadsVecs = 2, kWindowsMr = 3, kWindowsVecs = 2;
constexpr int kAheadBytes = 2048, kTilesAhead = 4;

inline I32 load_w(const int8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
template <int kCodes>
inline I32 window_at(const uint8_t* p) {
  if (kCodes == 16) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  int64_t eight;
  __builtin_memcpy(&eight, p, 8);
  return _mm256_set1_epi64x(eight);
}
template <int kCodes>
inline I32 pick(I32 window, I32 at) {
  return _mm256_shuffle_epi8(window, at);
}

#define PYOPS_AHEAD "cpu/int8_gemm/ahead.inl.h"
#include "cpu/int8_sparse_gemm/panels.inl.h"
#undef PYOPS_AHEAD
