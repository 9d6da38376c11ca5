// 32 channels at a time; sums of even and odd codes in 16-bit lanes.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/int8_pool/int8_pool.h"

PYOPS_TARGET_BEGIN("avx2,f16c")
namespace pyops::cpu::avx2 {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/int8_pool/codes.inl.h"

using Codes = __m256i;
constexpr int kCodes = 32;
struct Sums {
  __m256i even, odd;
};

inline Codes load_codes(const uint8_t* p, int n) {
  if (n == kCodes) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  alignas(32) uint8_t part[kCodes] = {};
  copy_part(part, p, n);
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(part));
}
inline void store_codes_part(uint8_t* p, Codes codes, int n) {
  if (n == kCodes) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), codes);
  alignas(32) uint8_t part[kCodes];
  _mm256_store_si256(reinterpret_cast<__m256i*>(part), codes);
  copy_part(p, part, n);
}
inline Codes set1_code(uint8_t v) { return _mm256_set1_epi8(static_cast<char>(v)); }
inline Codes flip(Codes a) { return _mm256_xor_si256(a, set1_code(0x80)); }
template <bool kSigned>
inline Codes max_codes(Codes a, Codes b) {
  return kSigned ? _mm256_max_epi8(a, b) : _mm256_max_epu8(a, b);
}
inline void add_codes(Sums* sums, Codes q) {
  const __m256i even = _mm256_and_si256(q, _mm256_set1_epi16(0xff));
  sums->even = _mm256_add_epi16(sums->even, even);
  sums->odd = _mm256_add_epi16(sums->odd, _mm256_srli_epi16(q, 8));
}
// words: 8 sums of each 128-bit lane, of codes 16 apart.
inline void add_words(__m256i words, int32_t* acc) {
  store(acc, add(load(acc), _mm256_cvtepu16_epi32(_mm256_castsi256_si128(words))));
  store(acc + 16, add(load(acc + 16), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(words, 1))));
}
inline void add_sums(const Sums& sums, int32_t* acc) {
  add_words(_mm256_unpacklo_epi16(sums.even, sums.odd), acc);
  add_words(_mm256_unpackhi_epi16(sums.even, sums.odd), acc + 8);
}

#include "cpu/int8_pool/pool.inl.h"

}  // namespace

void code_rows(const CodeRows& rows) { code_rows_impl(rows); }
void pool_row(const PoolRow& row) { pool_row_impl(row); }

}  // namespace pyops::cpu::avx2
PYOPS_TARGET_END
#endif
