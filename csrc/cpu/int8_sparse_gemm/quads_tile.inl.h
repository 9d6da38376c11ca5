// Tiles of panels of quads (panels.h): the dense tile, whose steps skip to the four k that the
// panel holds next. Include after dot_tiles.inl.h; the kernel file provides dot4 and load_w of
// int8_gemm/dot_block.inl.h.

template <bool kAhead, Direct kDirect, int kRows, int kVecs>
void tile(const Int8GemmBlock& b, const Places& places, const int32_t* start, Ahead ahead,
          const Target& target) {
  I32 sum[kRows][kVecs];
  begin_tile(start, sum);
  const int8_t* w = b.w;
  const uint16_t* at = b.at;
  const int64_t w_step = b.step_bytes;
  const int64_t last = places.depth / 4 - 1, taps = b.steps > 0 ? places.taps : 0;
  for (int64_t t = 0; t < taps; ++t) {
    const uint8_t* row[kRows];
    PYOPS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      row[r] = static_cast<const uint8_t*>(b.a) + places.row[r] + places.tap[t];
    }
    for (uint32_t left = b.counts[t]; left > 0; --left, ++at, w += w_step) {
      const int64_t x = 4 * min64(*at, last);
      I32 w_s8[kVecs];
      PYOPS_UNROLL
      for (int v = 0; v < kVecs; ++v) w_s8[v] = load_w(w + v * kLanes * 4);
      if (kAhead) prefetch<4 * kTileCols>(&ahead);
      PYOPS_UNROLL
      for (int r = 0; r < kRows; ++r) {
        int32_t four;
        __builtin_memcpy(&four, row[r] + x, 4);
        const I32 a_u8 = set1_i32(four);
        PYOPS_UNROLL
        for (int v = 0; v < kVecs; ++v) sum[r][v] = dot4(sum[r][v], a_u8, w_s8[v]);
      }
    }
  }
  end_tile<kDirect>(target, sum);
}
