// A block for the levels without VNNI: codes of a and w as int16, two products to an int32 lane by
// vpmaddwd, exactly and for any weight. (vpmaddubsw multiplies twice as many, but it saturates:
// 255 * 127 * 2 does not fit an int16. cut_block.inl.h takes weights that allow it.)
//
// Where several tiles share a panel, a stretch of it is widened once, into L1, and all rows pass
// it: the shuffle port is left to the sums. Per step of 2 k a tile of 6 x 2 vectors takes 12
// multiplies and 12 adds on three ports, so 8 cycles at best; widening inside makes it 8.7.
//
// Include after ahead.inl.h; the kernel file provides kMr, kTileVecs,
// kTileCols = kTileVecs * kLanes = nr, and
//   I32 madd(I32 a_s16, I32 w_s16)   and   I32 load_wide(const int8_t* p)  (2 * kLanes codes).

constexpr int kDepth = 16384 / (2 * kTileCols);  // 16 KiB of widened codes

// acc[r][v] += sum over k of madd(broadcast a[r][k..k+1], w[k..k+1] of columns v * kLanes ...)
// w: widened codes (kWide), or the panel itself. kAhead: prefetches.
template <bool kWide, bool kAhead, int kRows>
__attribute__((noinline)) void tile(const char* a, int64_t lda_bytes, const int8_t* w,
                                    int64_t w_step, int64_t depth, Ahead ahead, int32_t* acc) {
  constexpr int kVecBytes = kWide ? 4 * kLanes : 2 * kLanes;
  I32 sum[kRows][kTileVecs];
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kTileVecs; ++v) sum[r][v] = load(acc + r * kTileCols + v * kLanes);
  }
  for (int64_t k = 0; k < depth; k += 2, w += w_step) {
    if (kAhead) prefetch<2 * kTileCols>(&ahead);
    I32 w_s16[kTileVecs];
    PYOPS_UNROLL
    for (int v = 0; v < kTileVecs; ++v) {
      const int8_t* p = w + v * kVecBytes;
      w_s16[v] = kWide ? load(reinterpret_cast<const int32_t*>(p)) : load_wide(p);
    }
    PYOPS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      int32_t two;
      __builtin_memcpy(&two, a + r * lda_bytes + 2 * k, 4);
      const I32 a_s16 = set1_i32(two);
      PYOPS_UNROLL
      for (int v = 0; v < kTileVecs; ++v) sum[r][v] = add(sum[r][v], madd(a_s16, w_s16[v]));
    }
  }
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kTileVecs; ++v) store(acc + r * kTileCols + v * kLanes, sum[r][v]);
  }
}

using TileFn = void (*)(const char*, int64_t, const int8_t*, int64_t, int64_t, Ahead, int32_t*);

template <bool kWide, bool kAhead, int kRows = kMr>
inline TileFn tile_of(int rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tile_of<kWide, kAhead, kRows - 1>(rows);
  }
  return tile<kWide, kAhead, kRows>;
}

inline void widen(const Int8GemmBlock& b, int64_t k0, int64_t depth, int16_t* wide) {
  const int8_t* w = b.w + k0 * b.stored_cols;
  for (int64_t k = 0; k < depth; k += 2, w += 2 * b.stored_cols, wide += 2 * kTileCols) {
    PYOPS_UNROLL
    for (int v = 0; v < kTileVecs; ++v) {
      store(reinterpret_cast<int32_t*>(wide) + v * kLanes, load_wide(w + 2 * v * kLanes));
    }
  }
}

inline void block_of_madds(const Int8GemmBlock& b) {
  alignas(64) int32_t acc[kBlockRows * kTileCols];
  alignas(64) int16_t wide[kDepth * kTileCols];
  for (int64_t i = 0; i < b.rows * kTileCols; ++i) acc[i] = 0;
  prefetch_output(*b.epilogue, 0, b.rows, b.n0, b.cols);
  const int64_t tiles = (b.rows + kMr - 1) / kMr, w_step = 2 * b.stored_cols;
  const bool pays = tiles <= kTilesAhead;
  if (tiles == 1) {
    const auto* a = static_cast<const char*>(b.a);
    const Ahead ahead = ahead_of(b.w, w_step, b.k / 2, 0, 1);
    tile_of<false, true>(b.rows)(a, b.lda_bytes, b.w, w_step, b.k, ahead, acc);
  }
  for (int64_t k0 = 0; tiles > 1 && k0 < b.k; k0 += kDepth) {
    const int64_t depth = min64(kDepth, b.k - k0);
    widen(b, k0, depth, wide);
    const char* a = static_cast<const char*>(b.a) + 2 * k0;
    for (int64_t t = 0, r0 = 0; t < tiles; ++t) {
      const int rows = static_cast<int>((b.rows - r0) / (tiles - t));
      const TileFn multiply = pays ? tile_of<true, true>(rows) : tile_of<true, false>(rows);
      Ahead ahead = {};
      // Widening was the first to pass this stretch.
      if (pays) ahead = ahead_of(b.w + k0 * b.stored_cols, w_step, depth / 2, t + 1, tiles + 1);
      multiply(a + r0 * b.lda_bytes, b.lda_bytes, reinterpret_cast<int8_t*>(wide), 4 * kTileCols,
               depth, ahead, acc + r0 * kTileCols);
      r0 += rows;
    }
  }
  finish_for (*b.epilogue)(*b.epilogue, acc, kTileCols, 0, b.rows, b.n0, b.cols);
}
