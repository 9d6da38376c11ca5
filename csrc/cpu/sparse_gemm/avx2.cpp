// 32 tokens. ymm: of a pair 8 sums, 4 weights; of a quad 8 sums, 2 vectors of x, 4 weights.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/sparse_gemm/few_rows.h"

PYOPS_TARGET_BEGIN("avx2,f16c,fma,popcnt,prfchw")
namespace pyops::cpu::avx2 {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/fused_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/sparse_gemm/items.inl.h"

constexpr int kVecs = 4, kQuadVecs = 2;
using Four = F32;

inline Four load_four(const char* p) {
  return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
}
template <int kWhich>
inline F32 spread(Four w) {
  return _mm256_permute_ps(w, kWhich * 0x55);
}

#include "cpu/sparse_gemm/lanes.inl.h"

constexpr int kFewTokens = 1;  // 4 sums, 4 vectors of weights and their masks, 1 of x

// Of each mask of 8 bits: lane i takes value [mask][i], or none where that is negative.
struct Spread {
  alignas(64) int8_t at[256][8];
  constexpr Spread() : at() {
    for (int mask = 0; mask < 256; ++mask) {
      int8_t next = 0;
      for (int i = 0; i < 8; ++i) at[mask][i] = (mask >> i) & 1 ? next++ : int8_t{-1};
    }
  }
};
constexpr Spread kSpread;

struct Mask {
  I32 lanes;
  F32 keep;  // all bits of a lane with an entry
};
inline Mask read_mask(const char* p) {
  const int8_t* at = kSpread.at[read<uint8_t>(p)];
  const I32 lanes = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)));
  return {lanes, as_f32(_mm256_cmpgt_epi32(lanes, set1_i32(-1)))};
}
template <Dtype kType>
inline F32 expand(const char* p, const Mask& mask) {
  I32 values;
  if constexpr (kType == Dtype::bf16) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    values = shift_left<16>(_mm256_cvtepu16_epi32(half));
  } else {
    values = load_bits(p);
  }
  return _mm256_and_ps(_mm256_permutevar8x32_ps(as_f32(values), mask.lanes), mask.keep);
}
inline F32 add_entries(F32 acc, F32 w, F32 x, const Mask& mask) {
  return fma(w, _mm256_and_ps(x, mask.keep), acc);
}
inline void sum_lanes(const F32 (&acc)[4], float* out) {
  const F32 all = _mm256_hadd_ps(_mm256_hadd_ps(acc[0], acc[1]), _mm256_hadd_ps(acc[2], acc[3]));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}

#include "cpu/sparse_gemm/few_vectors.inl.h"
#include "cpu/sparse_gemm/few_rows.inl.h"

}  // namespace

#include "cpu/sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::avx2
PYOPS_TARGET_END
#endif
