// A block as tiles of kMr rows, for kernels whose multiply is one call per tile. Include after
// epilogue.inl.h; the kernel file provides
//
//   template <int kRows, int kVecs> void tile(const Int8GemmBlock& b, int64_t r0, int64_t c0,
//                                             const int32_t* start, int32_t* acc);
//
// which adds the sums of rows r0 .. r0 + kRows - 1, columns c0 .. c0 + kVecs * kLanes - 1 to
// start[column - c0] and leaves them in acc[kRows][kTileCols], and constants kMr, kTileVecs,
// kTileCols = kTileVecs * kLanes.

using TileFn = void (*)(const Int8GemmBlock&, int64_t, int64_t, const int32_t*, int32_t*);

template <int kRows = kMr, int kVecs = kTileVecs>
inline TileFn tile_of(int rows, int vecs) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tile_of<kRows - 1, kVecs>(rows, vecs);
  }
  if constexpr (kVecs > 1) {
    if (vecs < kVecs) return tile_of<kRows, kVecs - 1>(rows, vecs);
  }
  return tile<kRows, kVecs>;
}

inline void block_of_tiles(const Int8GemmBlock& b) {
  alignas(64) int32_t acc[kMr * kTileCols];
  alignas(64) int32_t start[kTileCols];
  const FinishFn finish = finish_for(*b.epilogue);
  for (int64_t c0 = 0; c0 < b.cols; c0 += kTileCols) {
    const int cols = static_cast<int>(min64(kTileCols, b.cols - c0));
    const int vecs = (cols + kLanes - 1) / kLanes;
    Epilogue epilogue = *b.epilogue;
    start_sums(&epilogue, b.n0 + c0, cols, start);
    // Rows are spread evenly: 8 rows run as 4 + 4, not as 6 + 2, whose second tile has too few
    // independent sums to hide the latency of the multiply.
    const int64_t tiles = (b.rows + kMr - 1) / kMr;
    for (int64_t t = 0, r0 = 0; t < tiles; ++t) {
      const int rows = static_cast<int>((b.rows - r0) / (tiles - t));
      prefetch_output(epilogue, r0, rows, b.n0 + c0, cols);
      tile_of(rows, vecs)(b, r0, c0, start, acc);
      finish(epilogue, acc, kTileCols, r0, rows, b.n0 + c0, cols);
      r0 += rows;
    }
  }
}
