// 64 channels at a time; sums of even and odd codes in 16-bit lanes.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/int8_pool/int8_pool.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq")
namespace pyops::cpu::avx512 {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/int8_pool/codes.inl.h"

using Codes = __m512i;
constexpr int kCodes = 64;
struct Sums {
  __m512i even, odd;
};

inline __mmask64 first_codes(int n) { return ~uint64_t{0} >> (64 - n); }
inline Codes load_codes(const uint8_t* p, int n) {
  return _mm512_maskz_loadu_epi8(first_codes(n), p);
}
inline void store_codes_part(uint8_t* p, Codes codes, int n) {
  _mm512_mask_storeu_epi8(p, first_codes(n), codes);
}
inline Codes set1_code(uint8_t v) { return _mm512_set1_epi8(static_cast<char>(v)); }
inline Codes flip(Codes a) { return _mm512_xor_si512(a, set1_code(0x80)); }
template <bool kSigned>
inline Codes max_codes(Codes a, Codes b) {
  return kSigned ? _mm512_max_epi8(a, b) : _mm512_max_epu8(a, b);
}
inline void add_codes(Sums* sums, Codes q) {
  const __m512i even = _mm512_and_si512(q, _mm512_set1_epi16(0xff));
  sums->even = _mm512_add_epi16(sums->even, even);
  sums->odd = _mm512_add_epi16(sums->odd, _mm512_srli_epi16(q, 8));
}
inline void add_sums(const Sums& sums, int32_t* acc) {
  const __m512i low = _mm512_unpacklo_epi16(sums.even, sums.odd);
  const __m512i high = _mm512_unpackhi_epi16(sums.even, sums.odd);
  // A 128-bit lane of `low` has codes 0 to 7 of 16, that of `high` 8 to 15.
  const __m512i to_first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i to_second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  const __m512i words[2] = {_mm512_permutex2var_epi64(low, to_first, high),
                            _mm512_permutex2var_epi64(low, to_second, high)};
  PYOPS_UNROLL
  for (int i = 0; i < 2; ++i) {
    int32_t* to = acc + 32 * i;
    store(to, add(load(to), _mm512_cvtepu16_epi32(_mm512_castsi512_si256(words[i]))));
    to += kLanes;
    store(to, add(load(to), _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words[i], 1))));
  }
}

#include "cpu/int8_pool/pool.inl.h"

}  // namespace

void code_rows(const CodeRows& rows) { code_rows_impl(rows); }
void pool_row(const PoolRow& row) { pool_row_impl(row); }

}  // namespace pyops::cpu::avx512
PYOPS_TARGET_END
#endif
