// 64 tokens of bf16. zmm: of a pair 8 sums, 1 of weights, 4 of x twice; of a quad 16, 1, 8.
#define PYOPS_AVX512_BF16
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include <cstddef>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/sparse_gemm/pack.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,prfchw")
namespace pyops::cpu::avx512bf16 {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/sparse_gemm/items.inl.h"

constexpr int kVecs = 4;
using Values = I32;
using Weights = I32;

// Interleaving works within pieces of 16 bytes, and leaves value 4 * j + i of a piece's 8 in lane
// 4 * p + i of vector j, p being the piece's place in its half of the row: so that is where a row
// of the block has token 16 * j + 4 * p + i.
constexpr int kPiece = 8, kPieces = 4, kHalf = kPiece * kPieces;
constexpr int token_of(int piece, int value) { return value / 4 * kLanes + 4 * piece + value % 4; }

template <int V>
inline void gather(const char* a, const char* b, Values (&to)[V]) {
  PYOPS_UNROLL
  for (int v = 0; v < V; v += 2) {
    I32 of_a = load_bits(a + v * kLanes * 2), of_b = load_bits(b + v * kLanes * 2);
    __asm__("" : "+v"(of_a), "+v"(of_b));  // or gcc reads them again for the upper halves
    to[v] = _mm512_unpacklo_epi16(of_a, of_b);
    if (v + 1 < V) to[v + 1] = _mm512_unpackhi_epi16(of_a, of_b);
  }
}

inline F32 dot2(F32 acc, Values x, Weights w) {
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
}
// Not shuffles of one load: interleaving keeps those busy.
inline Weights load_weights(const char* p) { return set1_i32(read<int32_t>(p)); }

#include "cpu/sparse_gemm/pairs.inl.h"

inline __m128i load_values(const uint16_t* p, int count) {
  if (count == kPiece) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm_maskz_loadu_epi16(static_cast<__mmask8>((1u << count) - 1), p);
}
inline I32 join(const __m128i (&pieces)[kPieces]) {
  I32 v = _mm512_castsi128_si512(pieces[0]);
  v = _mm512_mask_broadcast_i32x4(v, 0x00f0, pieces[1]);
  v = _mm512_mask_broadcast_i32x4(v, 0x0f00, pieces[2]);
  return _mm512_mask_broadcast_i32x4(v, 0xf000, pieces[3]);
}

inline void mix(const I32 (&from)[kPiece], I32 (&to)[kPiece]) {
  PYOPS_UNROLL
  for (int i = 0; i < kPiece / 2; ++i) {
    to[2 * i] = _mm512_unpacklo_epi16(from[i], from[i + kPiece / 2]);
    to[2 * i + 1] = _mm512_unpackhi_epi16(from[i], from[i + kPiece / 2]);
  }
}

// In each piece value i of vector j goes to value j of vector i.
inline void transpose_pieces(I32 (&vecs)[kPiece], I32 (&to)[kPiece]) {
  I32 other[kPiece];
  mix(vecs, to);
  mix(to, other);
  mix(other, to);
}

// Half a tile by `count` values of k; kWhole: count is kPiece.
template <bool kWhole>
inline void transpose_half(const uint16_t* const* rows, int64_t at, int count, char* out) {
  I32 vecs[kPiece], other[kPiece];
  PYOPS_UNROLL
  for (int i = 0; i < kPiece; ++i) {
    __m128i pieces[kPieces];
    PYOPS_UNROLL
    for (int j = 0; j < kPieces; ++j) {
      pieces[j] = load_values(rows[token_of(j, i)] + at, kWhole ? kPiece : count);
    }
    vecs[i] = join(pieces);
  }
  transpose_pieces(vecs, other);
  PYOPS_UNROLL
  for (int i = 0; i < kPiece; ++i) {
    if (kWhole || i < count) _mm512_storeu_si512(out + i * kTokens * 2, other[i]);
  }
}

// Half a tile by kHalf values of k: whole lines of the cache. Rows of x that are a power of two
// apart share a set of it, so that a line that is read piece by piece comes from L2 each time.
inline void transpose_lines(const uint16_t* const* rows, int64_t at, char* out) {
  I32 groups[kPieces][kPiece];  // of tokens; they take more than all registers
  for (int group = 0; group < kPieces; ++group) {
    I32 vecs[kPiece];
    PYOPS_UNROLL
    for (int i = 0; i < kPiece; ++i) vecs[i] = load_bits(rows[token_of(group, i)] + at);
    transpose_pieces(vecs, groups[group]);
  }
  // Piece j of vector i has value 8 * j + i of k of the group's tokens.
  for (int i = 0; i < kPiece; ++i, out += kTokens * 2) {
    const I32 low = _mm512_shuffle_i32x4(groups[0][i], groups[1][i], 0x44);
    const I32 high = _mm512_shuffle_i32x4(groups[0][i], groups[1][i], 0xee);
    const I32 other_low = _mm512_shuffle_i32x4(groups[2][i], groups[3][i], 0x44);
    const I32 other_high = _mm512_shuffle_i32x4(groups[2][i], groups[3][i], 0xee);
    const I32 lines[kPieces] = {
        _mm512_shuffle_i32x4(low, other_low, 0x88), _mm512_shuffle_i32x4(low, other_low, 0xdd),
        _mm512_shuffle_i32x4(high, other_high, 0x88), _mm512_shuffle_i32x4(high, other_high, 0xdd)};
    PYOPS_UNROLL
    for (int j = 0; j < kPieces; ++j) {
      _mm512_storeu_si512(out + j * kPiece * kTokens * 2, lines[j]);
    }
  }
}

// Of one segment, all tokens of a tile.
inline void transpose_block(const SparseTokens& t) {
  const uint16_t* rows[kTokens];
  for (int i = 0; i < kTokens; ++i) {
    const void* row = t.rows[i < t.tokens ? i : t.tokens - 1];
    rows[i] = static_cast<const uint16_t*>(row) + t.offset;
  }
  for (int half = 0; half * kHalf < t.tokens; ++half) {
    const uint16_t* const* own = rows + half * kHalf;
    char* out = static_cast<char*>(t.out) + half * kHalf * 2;
    int64_t k = t.k0;
    for (; k + kHalf <= t.k1; k += kHalf, out += kHalf * kTokens * 2) transpose_lines(own, k, out);
    for (; k + kPiece <= t.k1; k += kPiece, out += kPiece * kTokens * 2) {
      transpose_half<true>(own, k, kPiece, out);
    }
    if (k < t.k1) transpose_half<false>(own, k, static_cast<int>(t.k1 - k), out);
  }
}

}  // namespace

void sparse_tokens(const SparseTokens& task) { transpose_block(task); }
void sparse_multiply(const SparseSection& task) { multiply_section(task); }
void sparse_finish(const SparseSums& task) { finish_section(task); }
// Reads weights, and multiplies for nothing: in float32.
void sparse_few_rows(const SparseFewRows& task) { avx512::sparse_few_rows(task); }

}  // namespace pyops::cpu::avx512bf16
PYOPS_TARGET_END
#endif
