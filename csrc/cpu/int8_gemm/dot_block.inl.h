// A block for the VNNI levels: one instruction adds four u8 * s8 products to an int32 lane,
// exactly. Include after epilogue.inl.h and ahead.inl.h; the kernel file provides kMr, kTileVecs,
// kTileCols = kTileVecs * kLanes = nr, and
//
//   I32 dot4(I32 acc, I32 a_u8, I32 w_s8)   and   I32 load_w(const int8_t* p)  (kLanes * 4 bytes)

#include "cpu/int8_gemm/dot_tiles.inl.h"

// sum[r][v] = start[v] + sum over k of dot4(broadcast a[r][4k..4k+3], w[4k..4k+3] of columns v *
// kLanes ...).
template <bool kAhead, Direct kDirect, int kRows, int kVecs>
void tile(const Int8GemmBlock& b, const Places& places, const int32_t* start, Ahead ahead,
          const Target& target) {
  I32 sum[kRows][kVecs];
  begin_tile(start, sum);
  const int8_t* w = b.w;
  const int64_t w_step = static_cast<int64_t>(b.stored_cols) * 4, depth = places.depth;
  for (int64_t t = 0; t < places.taps; ++t) {
    const uint8_t* row[kRows];
    PYOPS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      row[r] = static_cast<const uint8_t*>(b.a) + places.row[r] + places.tap[t];
    }
    for (int64_t k = 0; k < depth; k += 4, w += w_step) {
      I32 w_s8[kVecs];
      PYOPS_UNROLL
      for (int v = 0; v < kVecs; ++v) w_s8[v] = load_w(w + v * kLanes * 4);
      if (kAhead) prefetch<4 * kTileCols>(&ahead);
      PYOPS_UNROLL
      for (int r = 0; r < kRows; ++r) {
        int32_t four;
        __builtin_memcpy(&four, row[r] + k, 4);
        const I32 a_u8 = set1_i32(four);
        PYOPS_UNROLL
        for (int v = 0; v < kVecs; ++v) sum[r][v] = dot4(sum[r][v], a_u8, w_s8[v]);
      }
    }
  }
  end_tile<kDirect>(target, sum);
}

#include "cpu/int8_gemm/dot_roll.inl.h"

inline void block_of_tiles(const Int8GemmBlock& b) {
  alignas(64) int32_t acc[kMr * kTileCols];
  alignas(64) int32_t start[kTileCols];
  const int vecs = (b.cols + kLanes - 1) / kLanes;
  Epilogue epilogue = *b.epilogue;
  start_sums(&epilogue, b.n0, b.cols, start);
  const Direct direct = direct_for(epilogue);
  const FinishFn finish = direct == Direct::none ? finish_for(epilogue) : nullptr;
  Target target;
  target.acc = acc;
  if (direct != Direct::none) start_direct(epilogue, b.n0, b.cols, &target.direct);
  RowPlaces row_places(b);
  const int64_t no_taps = 0;
  Places places = {{}, &no_taps, 1, b.k};
  if (b.taps) places = {{}, b.taps->at, b.taps->count, b.taps->depth};
  const int64_t tiles = (b.rows + kMr - 1) / kMr;
  const bool pays = tiles <= kTilesAhead;
  const int64_t rolled = direct == Direct::none ? 0 : rolled_tiles(b, places);
  if (rolled > 0) {
    roll_tiles({b, places, start, &row_places, &target.direct}, direct, pays, rolled, tiles);
  }
  if (rolled == tiles) return;
  // Rows are spread evenly: 8 rows run as 4 + 4, not as 6 + 2, whose second tile has too few
  // independent sums to hide the latency of the multiply.
  int64_t r0 = rolled * kMr;
  const int least = static_cast<int>((b.rows - r0) / (tiles - rolled));
  const int64_t longer = tiles - (b.rows - r0) % (tiles - rolled);
  TileFn multiply = tile_of(pays, direct, least, vecs);
  for (int64_t t = rolled; t < tiles; ++t) {
    const int rows = least + (t >= longer);
    if (t == longer) multiply = tile_of(pays, direct, rows, vecs);
    Ahead ahead = {};
    if (pays) ahead = ahead_of(b.w, 4 * b.stored_cols, b.k / 4, t, tiles);
    prefetch_output(epilogue, r0, rows, b.n0, b.cols);
    row_places.next(rows, places.row);
    multiply(b, places, start, ahead, target);
    if (finish) {
      finish(epilogue, acc, kTileCols, r0, rows, b.n0, b.cols);
    } else {
      advance(&target.direct, rows);
    }
    r0 += rows;
  }
}
