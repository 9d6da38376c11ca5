// avx512vnni.cpp, and few rows by an instruction that spreads bytes: 16 zmm sums, 4 of weights, 1
// of x.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2,avx512vnni,popcnt,prfchw,bmi")
namespace pyops::cpu::avx512vbmi2 {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/sparse_gemm/items.inl.h"
#include "cpu/int8_sparse_gemm/zmm.inl.h"

constexpr int kFewTokens = 4;

inline I32 expand(const char* p, uint64_t mask) {
  I32 values = load_bits(p);
  __asm__("" : "+v"(values));  // or gcc spreads from memory, which some CPUs do in microcode
  return _mm512_maskz_expand_epi8(mask, values);
}
// Of each 128 bits: a0 + a2, b0 + b2, a1 + a3, b1 + b3.
inline I32 add_halves(I32 a, I32 b) {
  return add(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}
inline void sum_lanes(const I32 (&acc)[4], int32_t* out) {
  const I32 low = add_halves(acc[0], acc[1]), high = add_halves(acc[2], acc[3]);
  const I32 all = add(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
  const __m256i half =
      _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                   _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}

#include "cpu/int8_sparse_gemm/few_codes.inl.h"
#include "cpu/int8_sparse_gemm/few_rows.inl.h"

}  // namespace

#include "cpu/int8_sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::avx512vbmi2
PYOPS_TARGET_END
#endif
