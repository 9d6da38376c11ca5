// 64 tokens. zmm: of a pair 8 sums, 4 weights; of a quad 16 sums, 4 vectors of x, 4 weights.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/sparse_gemm/few_rows.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,popcnt,prfchw")
namespace pyops::cpu::avx512 {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/sparse_gemm/items.inl.h"

constexpr int kVecs = 4, kQuadVecs = 4;
using Four = F32;

inline Four load_four(const char* p) {
  return _mm512_broadcast_f32x4(_mm_loadu_ps(reinterpret_cast<const float*>(p)));
}
// Not a broadcast from memory: loads are what bounds the kernel.
template <int kWhich>
inline F32 spread(Four w) {
  return _mm512_permute_ps(w, kWhich * 0x55);
}

#include "cpu/sparse_gemm/lanes.inl.h"

constexpr int kFewTokens = 4;  // 16 sums, 4 vectors of weights, 1 of x

using Mask = __mmask16;
inline Mask read_mask(const char* p) {
  auto mask = read<Mask>(p);
  __asm__("" : "+k"(mask));  // or gcc reads it again for each product
  return mask;
}
template <Dtype kType>
inline F32 expand(const char* p, Mask mask) {
  I32 values;
  if constexpr (kType == Dtype::bf16) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    values = shift_left<16>(_mm512_cvtepu16_epi32(half));
  } else {
    values = load_bits(p);
  }
  __asm__("" : "+v"(values));  // or gcc spreads from memory, which some CPUs do in microcode
  return as_f32(_mm512_maskz_expand_epi32(mask, values));
}
inline F32 add_entries(F32 acc, F32 w, F32 x, Mask mask) {
  return _mm512_mask3_fmadd_ps(w, x, acc, mask);
}
inline __m512d add_halves(F32 a, F32 b) {  // of each 128 bits: a0 + a2, b0 + b2, a1 + a3, b1 + b3
  return _mm512_castps_pd(add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
}
inline void sum_lanes(const F32 (&acc)[4], float* out) {
  const __m512d low = add_halves(acc[0], acc[1]), high = add_halves(acc[2], acc[3]);
  const F32 all = add(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                      _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

#include "cpu/sparse_gemm/few_vectors.inl.h"
#include "cpu/sparse_gemm/few_rows.inl.h"

}  // namespace

#include "cpu/sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::avx512
PYOPS_TARGET_END
#endif
