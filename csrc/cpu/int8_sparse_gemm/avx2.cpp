// 32 tokens, codes widened to int16, so that no product saturates. ymm: of a pair 8 sums, 2
// weights, 4 of x; of a quad, 16 tokens at a time, 8 sums, 2 weights, 4 of x.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

PYOPS_TARGET_BEGIN("avx2,f16c,fma,prfchw")
namespace pyops::cpu::avx2 {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/fused_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/sparse_gemm/items.inl.h"
#include "cpu/int8_sparse_gemm/ymm.inl.h"

constexpr int kTokens = 32, kQuadVecs = 2;
constexpr int kRowBytes = 2 * kTokens;

// Codes of entries 0 and 1 side by side, and of 2 and 3; weights alike.
struct Codes {
  I32 low, high;
};
using Weights = Codes;

// Interleaving two vectors of a row leaves token 8 * v + 4 * p + i of vector v in lane 4 * p + i;
// vector v is half v % 2 of 16 bytes p in vector v / 2 of the row. The row's vectors are widened
// pieces.
constexpr int token_of(int piece, int byte) {
  return 16 * piece + byte / 4 % 2 * 8 + byte / 8 * 4 + byte % 4;
}

template <int kFrom, int V>
inline void gather(const char* const (&rows)[4], Codes (&to)[V]) {
  static_assert(kFrom % 2 == 0);
  PYOPS_UNROLL
  for (int v = 0; v < V; v += 2) {
    const int at = (kFrom + v) * 16;
    const I32 a = load_bits(rows[0] + at), b = load_bits(rows[1] + at);
    const I32 c = load_bits(rows[2] + at), d = load_bits(rows[3] + at);
    to[v] = {halves_low(a, b), halves_low(c, d)};
    if (v + 1 < V) to[v + 1] = {halves_high(a, b), halves_high(c, d)};
  }
}

inline I32 dot4(I32 acc, const Codes& codes, const Weights& w) {
  acc = add(acc, _mm256_madd_epi16(codes.low, w.low));
  return add(acc, _mm256_madd_epi16(codes.high, w.high));
}

inline Weights load_weights(const char* p) {
  const __m128i four = _mm_cvtepi8_epi16(_mm_cvtsi32_si128(read<int32_t>(p)));
  const I32 all = _mm256_broadcastq_epi64(four);
  return {_mm256_shuffle_epi32(all, 0x00), _mm256_shuffle_epi32(all, 0x55)};
}

inline void store_row(char* to, I32 codes) {
  auto* at = reinterpret_cast<__m256i*>(to);
  _mm256_storeu_si256(at, _mm256_cvtepu8_epi16(_mm256_castsi256_si128(codes)));
  _mm256_storeu_si256(at + 1, _mm256_cvtepu8_epi16(_mm256_extracti128_si256(codes, 1)));
}

#include "cpu/int8_sparse_gemm/lanes.inl.h"
#include "cpu/int8_sparse_gemm/tokens.inl.h"
#include "cpu/int8_sparse_gemm/few_plain.inl.h"
#include "cpu/int8_sparse_gemm/few_rows.inl.h"

}  // namespace

#include "cpu/int8_sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::avx2
PYOPS_TARGET_END
#endif
