// Tiles in plain C++, for any kTileMr x kTileNr. Include after epilogue_float.inl.h.

inline float plain_value(const ConvTile& t, const void* from, int64_t at) {
  if (t.type == Dtype::bf16) return bf16_to_float(static_cast<const uint16_t*>(from)[at]);
  return static_cast<const float*>(from)[at];
}

template <int kTileMr, int kTileNr>
void plain_tile(const ConvTile& t) {
  float sums[kTileMr * kTileNr] = {};
  const float* w = static_cast<const float*>(t.w);
  for (int64_t s = 0; s < t.segments; ++s) {
    const void* const* rows = t.rows + s * t.pixels;
    for (int64_t d = 0; d < t.depth; ++d, w += kTileNr) {
      for (int r = 0; r < t.pixels; ++r) {
        const float x = plain_value(t, rows[r], t.offset + d);
        for (int c = 0; c < t.cols; ++c) sums[r * kTileNr + c] += x * w[c];
      }
    }
  }
  finish_float_for (*t.epilogue)(*t.epilogue, sums, kTileNr, t.m0, t.pixels, t.n0, t.cols);
}

template <int kTileNr>
void plain_depthwise(const ConvTile& t) {
  const int64_t line = round_up(t.cols, kConvLanes);
  const FinishFloatFn finish = finish_float_for(*t.epilogue);
  for (int r = 0; r < t.pixels; ++r) {
    for (int64_t c0 = 0; c0 < t.cols; c0 += kTileNr) {
      const int cols = static_cast<int>(min64(kTileNr, t.cols - c0));
      const float* w = static_cast<const float*>(t.w) + c0;
      float sums[kTileNr] = {};
      for (int64_t s = 0; s < t.segments; ++s, w += line) {
        const void* const* own = t.rows + s * t.pixels;
        const void* from = t.step ? static_cast<const char*>(*own) + r * t.step : own[r];
        for (int c = 0; c < cols; ++c) sums[c] += plain_value(t, from, c0 + c) * w[c];
      }
      finish(*t.epilogue, sums, kTileNr, t.m0 + r, 1, c0, cols);
    }
  }
}
