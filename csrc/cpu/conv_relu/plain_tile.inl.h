// Tiles in plain C++, for any kTileMr x kTileNr. Include after epilogue_float.inl.h.

inline float plain_value(Dtype type, const void* from, int64_t at) {
  if (type == Dtype::bf16) return bf16_to_float(static_cast<const uint16_t*>(from)[at]);
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
        const float x = plain_value(t.type, rows[r], t.offset + d);
        for (int c = 0; c < t.cols; ++c) sums[r * kTileNr + c] += x * w[c];
      }
    }
  }
  finish_float_for (*t.epilogue)(*t.epilogue, sums, kTileNr, t.m0, t.pixels, t.n0, t.cols);
}

// acc[c] += the window's taps of channel c0 + c, at pixel ox of a row.
inline void plain_window(const ConvDepthwise& t, const TapRow* rows, int64_t ox, int64_t c0,
                         int cols, float* sums) {
  const ConvShape& s = *t.shape;
  const int64_t line = round_up(s.c, kConvLanes);
  const float* w = t.w + c0;
  for (int64_t ky = 0; ky < s.kh; ++ky) {
    for (int64_t kx = 0; kx < s.kw; ++kx, w += line) {
      const int64_t x = ox * s.stride_w - s.left + kx * s.dilation_w;
      const char* from = x >= 0 && x < s.w ? rows[ky].x + x * rows[ky].step : t.zeros;
      for (int c = 0; c < cols; ++c) sums[c] += plain_value(t.type, from, c0 + c) * w[c];
    }
  }
}

template <int kTileNr>
void plain_depthwise(const ConvDepthwise& t) {
  const ConvShape& s = *t.shape;
  const FinishFloatFn finish = finish_float_for(*t.epilogue);
  const TapRow* rows = t.rows;
  for (int64_t row = t.row; row < t.row_end; ++row, rows += s.kh) {
    for (int64_t ox = 0; ox < s.ow; ++ox) {
      for (int64_t c0 = t.c; c0 < t.c_end; c0 += kTileNr) {
        const int cols = static_cast<int>(min64(kTileNr, t.c_end - c0));
        float sums[kTileNr] = {};
        plain_window(t, rows, ox, c0, cols, sums);
        finish(*t.epilogue, sums, kTileNr, row * s.ow + ox, 1, c0, cols);
      }
    }
  }
}
