// 6 x 16 tile. ymm: 12 sums + 1 of w + 1 broadcast of a + 1 product + 1 of ones = 16 of 16.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/int8_gemm/int8_gemm.h"

PYOPS_TARGET_BEGIN("avx2,f16c,prfchw")
namespace pyops::cpu::avx2 {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/norm_row.inl.h"
#include "cpu/int8_gemm/quantize_row.inl.h"

constexpr int kMr = 6, kTileVecs = 2, kTileCols = kTileVecs * kLanes;

inline I32 dot4(I32 a_u8, I32 w_s8, I32 ones_s16) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(a_u8, w_s8), ones_s16);
}
// With few rows the loop runs faster than w comes out of L3 or memory by itself.
inline void prefetch_w(const int8_t* w) {
  _mm_prefetch(reinterpret_cast<const char*>(w) + 2048, _MM_HINT_T0);
}

#include "cpu/int8_gemm/cut_block.inl.h"

// Four groups of codes at a time into the strings of cut.h. `codes` may be the last quarter of
// `to`: no code is written over before it has been read.
inline void write_strings(const uint8_t* codes, int64_t k_padded, uint8_t* to) {
  const I32 first = _mm256_setr_epi8(0, 1, 2, 3, 0, 1, 2, 3, 0, 2, 1, 3, 0, 2, 1, 3,  //
                                     4, 5, 6, 7, 4, 5, 6, 7, 4, 6, 5, 7, 4, 6, 5, 7);
  const I32 second = _mm256_add_epi8(first, _mm256_set1_epi8(8));
  const I32 flip = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 0, 0, 0, 0, -1, 0, -1, 0, 0, 0, 0, -1, 0, -1, 0));
  for (int64_t k = 0; k < k_padded; k += 16, to += 64) {
    const I32 four =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + k)));
    const I32 low = _mm256_xor_si256(_mm256_shuffle_epi8(four, first), flip);
    const I32 high = _mm256_xor_si256(_mm256_shuffle_epi8(four, second), flip);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to) + 1, high);
  }
}

}  // namespace

void int8_gemm_block(const Int8GemmBlock& b) { block_of_cuts(b); }

void norm_row(const NormRow& row) { norm_row_impl(row); }
void quantize_row(const QuantizeRow& row) {
  if (row.codes != Codes::u8x4) return quantize_row_impl(row);
  QuantizeRow plain = row;
  plain.codes = Codes::u8;
  plain.q = static_cast<uint8_t*>(row.q) + 3 * row.k_padded;
  quantize_row_impl(plain);
  write_strings(static_cast<const uint8_t*>(plain.q), row.k_padded, static_cast<uint8_t*>(row.q));
}

}  // namespace pyops::cpu::avx2
PYOPS_TARGET_END
#endif
