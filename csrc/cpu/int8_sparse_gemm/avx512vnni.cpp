// 64 tokens. zmm: of a pair 8 sums, 1 of weights, up to 8 of x; of a quad 16, 1, 8.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,prfchw")
namespace pyops::cpu::avx512vnni {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/sparse_gemm/items.inl.h"

constexpr int kTokens = 64, kQuadVecs = 4, kPieces = 4;

inline I32 bytes_low(I32 a, I32 b) { return _mm512_unpacklo_epi8(a, b); }
inline I32 bytes_high(I32 a, I32 b) { return _mm512_unpackhi_epi8(a, b); }
inline I32 halves_low(I32 a, I32 b) { return _mm512_unpacklo_epi16(a, b); }
inline I32 halves_high(I32 a, I32 b) { return _mm512_unpackhi_epi16(a, b); }
inline I32 flip(I32 codes, I32 bits) { return _mm512_xor_si512(codes, bits); }
inline I32 dot4(I32 acc, I32 codes, I32 w) { return _mm512_dpbusd_epi32(acc, codes, w); }

inline __m128i load_codes(const uint8_t* p, int count) {
  if (count == 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << count) - 1), p);
}
inline I32 join(const __m128i (&pieces)[kPieces]) {
  I32 v = _mm512_castsi128_si512(pieces[0]);
  v = _mm512_mask_broadcast_i32x4(v, 0x00f0, pieces[1]);
  v = _mm512_mask_broadcast_i32x4(v, 0x0f00, pieces[2]);
  return _mm512_mask_broadcast_i32x4(v, 0xf000, pieces[3]);
}
inline void store_row(char* to, I32 codes) { _mm512_storeu_si512(to, codes); }

#include "cpu/int8_sparse_gemm/dot.inl.h"

#include "cpu/int8_sparse_gemm/lanes.inl.h"
#include "cpu/int8_sparse_gemm/tokens.inl.h"

}  // namespace

#include "cpu/int8_sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::avx512vnni
PYOPS_TARGET_END
#endif
