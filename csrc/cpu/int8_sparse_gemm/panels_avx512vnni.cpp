// Panels by tiles of 8 x 32 (quads; zmm: 16 sums, 2 of w, 1 of x) and 12 x 32 (windows: 24 sums, 2
// of w, 2 of picks, 2 of x, a mask). Steps of quads are short, and pointers to 12 rows are more
// than the general registers hold: reloading them takes longer than what 8 rows lose.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/int8_gemm/int8_gemm.h"
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,prfchw")
namespace pyops::cpu::avx512vnni {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"

constexpr int kQuadsMr = 8, kQuadsVecs = 2, kWindowsMr = 12, kWindowsVecs = 2;
constexpr int kAheadBytes = 4096, kTilesAhead = kBlockRows;

inline I32 load_w(const int8_t* p) { return _mm512_loadu_si512(p); }
inline I32 dot4(I32 acc, I32 a_u8, I32 w_s8) { return _mm512_dpbusd_epi32(acc, a_u8, w_s8); }
inline I32 all_lanes(const uint8_t* p) {
  int64_t eight;
  __builtin_memcpy(&eight, p, 8);
  return _mm512_set1_epi64(eight);
}
// Two loads, which broadcast 8 bytes by themselves, and a bit operation: a broadcast of 16 bytes
// takes a port of the picks.
template <int kCodes>
inline I32 window_at(const uint8_t* p) {
  const I32 low = all_lanes(p);
  if (kCodes == 8) return low;
  const I32 upper = _mm512_set_epi64(-1, 0, -1, 0, -1, 0, -1, 0);
  return _mm512_ternarylogic_epi64(low, all_lanes(p + 8), upper, 0xd8);
}
template <int kCodes>
inline I32 pick(I32 window, I32 at) {
  return _mm512_shuffle_epi8(window, at);
}

#define PYOPS_AHEAD "cpu/int8_gemm/ahead.inl.h"
#include "cpu/int8_sparse_gemm/panels.inl.h"
#undef PYOPS_AHEAD

}  // namespace

#include "cpu/int8_sparse_gemm/panel_entries.inl.h"

}  // namespace pyops::cpu::avx512vnni
PYOPS_TARGET_END
#endif
