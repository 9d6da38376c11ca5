// 32 x 32 tile of AMX: four 16 x 16 sums, two tiles of rows and two of k or v, bf16 pairs.
//
//   tmm 0 1     sums, rows 0..15     tmm 4  rows  0..15     tmm 6 7  columns 0..15, 16..31
//       2 3          rows 16..31         5  rows 16..31
//
// A tile of columns is 16 lines of 16 dwords: k and v as pack.h has them, read with their strides.
#define PYOPS_AVX512_BF16
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/attention/pack.h"
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")
namespace pyops::cpu::amx::attention {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"
#include "cpu/common/tiles_amx.inl.h"

constexpr int kTileRows = 16, kTileDwords = 16;
constexpr int kMr = 32, kNr = 64, kPair = 2;
constexpr int kDepthStep = kTileDwords, kRowStep = kTileRows, kWeightStep = 2 * kTileDwords;

// c[32 or 16][32 or 16] (+)= a[..][depth] b[depth][..], in dwords of pairs; strides in dwords.
template <bool kLower, bool kRight>
__attribute__((noinline)) void tile(const float* a, int64_t lda, const float* b, int64_t ldb,
                                    int64_t depth, bool add_to, float* c, int64_t ldc) {
  float* lower = c + kTileRows * ldc;
  if (add_to) {
    _tile_loadd(0, c, ldc * 4);
    if (kRight) _tile_loadd(1, c + kTileDwords, ldc * 4);
    if (kLower) _tile_loadd(2, lower, ldc * 4);
    if (kLower && kRight) _tile_loadd(3, lower + kTileDwords, ldc * 4);
  } else {
    _tile_zero(0);
    if (kRight) _tile_zero(1);
    if (kLower) _tile_zero(2);
    if (kLower && kRight) _tile_zero(3);
  }
  for (int64_t d = 0; d < depth; d += kTileDwords, b += kTileDwords * ldb) {
    _tile_loadd(6, b, ldb * 4);
    _tile_loadd(4, a + d, lda * 4);
    _tile_dpbf16ps(0, 4, 6);
    if (kRight) {
      _tile_loadd(7, b + kTileDwords, ldb * 4);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (kLower) {
      _tile_loadd(5, a + kTileRows * lda + d, lda * 4);
      _tile_dpbf16ps(2, 5, 6);
    }
    if (kLower && kRight) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, ldc * 4);
  if (kRight) _tile_stored(1, c + kTileDwords, ldc * 4);
  if (kLower) _tile_stored(2, lower, ldc * 4);
  if (kLower && kRight) _tile_stored(3, lower + kTileDwords, ldc * 4);
}

// c[rows][32 or 16 columns] (+)= a b.
template <bool kRight>
void strip(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t depth, bool add_to,
           int64_t rows, float* c, int64_t ldc) {
  for (int64_t r = 0; r < rows; r += 2 * kTileRows, a += 2 * kTileRows * lda) {
    if (r + kTileRows < rows) {
      tile<true, kRight>(a, lda, b, ldb, depth, add_to, c + r * ldc, ldc);
    } else {
      tile<false, kRight>(a, lda, b, ldb, depth, add_to, c + r * ldc, ldc);
    }
  }
}

void product(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t depth, bool add_to,
             int64_t rows, int64_t columns, float* c, int64_t ldc) {
  if (columns > kTileDwords) {
    strip<true>(a, lda, b, ldb, depth, add_to, rows, c, ldc);
  } else {
    strip<false>(a, lda, b, ldb, depth, add_to, rows, c, ldc);
  }
}

void scores(const float* q, const float* k, int64_t depth, int64_t rows, int64_t keys, float* to,
            int64_t stride) {
  for (int64_t j = 0; j < keys; j += 2 * kTileDwords) {
    const float* panel = k + j / kNr * kNr * depth + j % kNr;
    product(q, depth, panel, kNr, depth, false, rows, keys - j, to + j, stride);
  }
}

void values(const float* weights, int64_t stride, const float* v, int64_t keys, int64_t depth,
            int64_t rows, bool add_to, float* acc) {
  for (int64_t d = 0; d < depth; d += 2 * kTileDwords) {
    product(weights, stride, v + d, depth, keys / kPair, add_to, rows, depth - d, acc + d, depth);
  }
}

#include "cpu/attention/values.inl.h"
#include "cpu/attention/pack.inl.h"
#include "cpu/attention/softmax.inl.h"
#include "cpu/attention/pairs.inl.h"
#include "cpu/attention/direct.inl.h"
using Weights = PairWeights;
#include "cpu/attention/attend.inl.h"

void attend_part(const AttentionProblem& p, int64_t begin, int64_t end, char* scratch) {
  configure_tiles();  // all whole: rows of q and keys of v are padded
  attend_blocks<Bf16Pairs, FromBf16>(p, begin, end, scratch);
  _tile_release();
}

}  // namespace

#include "cpu/attention/entries.inl.h"

}  // namespace pyops::cpu::amx::attention
PYOPS_TARGET_END
#endif
