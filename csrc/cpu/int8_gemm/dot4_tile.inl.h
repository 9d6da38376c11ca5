// The tile of the VNNI levels: one instruction adds four u8 * s8 products to an int32 lane,
// exactly. Include after dot_block.inl.h's requirements kMr, kTileVecs, kTileCols; the kernel file
// provides
//   I32 dot4(I32 acc, I32 a_u8, I32 w_s8)   and   I32 load_w(const int8_t* p)  (kLanes * 4 bytes).
//
//   acc[r][v] = start[v] + sum over k of dot4(broadcast a[r][4k..4k+3], w[4k..4k+3] of columns v *
//   kLanes ...)

template <int kRows, int kVecs>
__attribute__((noinline)) void tile(const Int8GemmBlock& b, int64_t r0, int64_t c0,
                                    const int32_t* start, int32_t* acc) {
  I32 sum[kRows][kVecs];
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) sum[r][v] = load(start + v * kLanes);
  }
  const uint8_t* a = static_cast<const uint8_t*>(b.a) + r0 * b.lda_bytes;
  const int8_t* w = b.w + c0 * 4;
  const int64_t w_step = static_cast<int64_t>(b.stored_cols) * 4;
  for (int64_t k = 0; k < b.k; k += 4, w += w_step) {
    I32 w_s8[kVecs];
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) w_s8[v] = load_w(w + v * kLanes * 4);
    prefetch_w(w);
    PYOPS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      int32_t four;
      __builtin_memcpy(&four, a + r * b.lda_bytes + k, 4);
      const I32 a_u8 = set1_i32(four);
      PYOPS_UNROLL
      for (int v = 0; v < kVecs; ++v) sum[r][v] = dot4(sum[r][v], a_u8, w_s8[v]);
    }
  }
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) store(acc + r * kTileCols + v * kLanes, sum[r][v]);
  }
}
