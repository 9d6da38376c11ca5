// Tiles of windows (panels.h): of the codes of a window, which come to all lanes at once, each
// output picks the four that it multiplies. Include after dot_tiles.inl.h; the kernel file provides
// dot4 and load_w of int8_gemm/dot_block.inl.h, kWindow (8 or 16) and
//
//   Codes window_at<kWindow>(const uint8_t* p)   the codes at p, for all lanes
//   I32 pick<kWindow>(const Codes& window, I32 at)       byte i of `at` says which code is byte i

template <bool kAhead, Direct kDirect, int kRows, int kVecs>
void tile(const Int8GemmBlock& b, const Places& places, const int32_t* start, Ahead ahead,
          const Target& target) {
  I32 sum[kRows][kVecs];
  begin_tile(start, sum);
  const int8_t* w = b.w;
  const int64_t half = static_cast<int64_t>(b.stored_cols) * 4, depth = places.depth;
  const int64_t taps = b.steps > 0 ? places.taps : 0;
  for (int64_t t = 0; t < taps; ++t) {
    const uint8_t* row[kRows];
    PYOPS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      row[r] = static_cast<const uint8_t*>(b.a) + places.row[r] + places.tap[t];
    }
    for (int64_t k = 0; k < depth; k += kWindow, w += 2 * half) {
      I32 w_s8[kVecs], at[kVecs];
      PYOPS_UNROLL
      for (int v = 0; v < kVecs; ++v) {
        w_s8[v] = load_w(w + v * kLanes * 4);
        at[v] = load_w(w + half + v * kLanes * 4);
      }
      if (kAhead) prefetch<8 * kTileCols>(&ahead);
      PYOPS_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const auto window = window_at<kWindow>(row[r] + k);
        PYOPS_UNROLL
        for (int v = 0; v < kVecs; ++v) {
          sum[r][v] = dot4(sum[r][v], pick<kWindow>(window, at[v]), w_s8[v]);
        }
      }
    }
  }
  end_tile<kDirect>(target, sum);
}
