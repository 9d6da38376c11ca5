// The tile of the levels without VNNI: a and w widened to int16, two products to an int32 lane by
// vpmaddwd, exactly. (vpmaddubsw would multiply twice as many but saturates: 255 * 127 * 2 >
// 32767.) The kernel file provides kMr, kTileVecs, kTileCols and
//   I32 madd(I32 a_s16, I32 w_s16)   and   I32 load_w(const int8_t* p)  (kLanes * 2 bytes,
//   widened).
//
//   acc[r][v] += madd(broadcast a[r][2k..2k+1], w[2k..2k+1] of columns v * kLanes ...)

template <int kRows, int kVecs>
__attribute__((noinline)) void tile(const Int8GemmBlock& b, int64_t r0, int64_t c0, int32_t* acc) {
  I32 sum[kRows][kVecs];
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) sum[r][v] = set1_i32(0);
  }
  const char* a = static_cast<const char*>(b.a) + r0 * b.lda_bytes;
  const int8_t* w = b.w + c0 * 2;
  const int64_t w_step = static_cast<int64_t>(b.stored_cols) * 2;
  for (int64_t k = 0; k < b.k; k += 2, w += w_step) {
    I32 w_s16[kVecs];
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) w_s16[v] = load_w(w + v * kLanes * 2);
    PYOPS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      int32_t two;
      __builtin_memcpy(&two, a + r * b.lda_bytes + 2 * k, 4);
      const I32 a_s16 = set1_i32(two);
      PYOPS_UNROLL
      for (int v = 0; v < kVecs; ++v) sum[r][v] = add(sum[r][v], madd(a_s16, w_s16[v]));
    }
  }
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) store(acc + r * kTileCols + v * kLanes, sum[r][v]);
  }
}
