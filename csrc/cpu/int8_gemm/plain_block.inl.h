// A block in plain C++ on int8 codes, for any kTileMr x kTileNr. Include after epilogue.inl.h.

template <int kTileMr, int kTileNr>
void plain_block(const Int8GemmBlock& b) {
  int32_t acc[kTileMr * kTileNr];
  const FinishFn finish = finish_for(*b.epilogue);
  for (int64_t r0 = 0; r0 < b.rows; r0 += kTileMr) {
    const int rows = static_cast<int>(min64(kTileMr, b.rows - r0));
    for (int i = 0; i < kTileMr * kTileNr; ++i) acc[i] = 0;
    for (int64_t k = 0; k < b.k; k += 4) {
      for (int r = 0; r < rows; ++r) {
        const int8_t* a = static_cast<const int8_t*>(b.a) + (r0 + r) * b.lda_bytes + k;
        const int8_t* w = b.w + k * b.stored_cols;
        for (int c = 0; c < b.cols; ++c, w += 4) {
          acc[r * kTileNr + c] += a[0] * w[0] + a[1] * w[1] + a[2] * w[2] + a[3] * w[3];
        }
      }
    }
    finish(*b.epilogue, acc, kTileNr, r0, rows, b.n0, b.cols);
  }
}
