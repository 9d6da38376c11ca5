// Depthwise tiles, channels in lanes. Include after tile.inl.h.

// Pixels and vectors of channels at a time: per tap a vector of w serves all pixels.
constexpr int kDepthwiseRows = 6, kDepthwiseVecs = kLanes == 16 ? 4 : 2;
constexpr int kDepthwiseCols = kDepthwiseVecs * kLanes;

// Pixels row ..., channels c ...; one vector may have fewer than kLanes. kStep: pixels are t.step
// apart, otherwise each has its pointer.
template <Dtype kType, int Rows, int Vecs, bool kStep>
__attribute__((noinline)) void depthwise_sums(const ConvTile& t, int row, int64_t c, int lanes,
                                              float* sums) {
  F32 acc[Rows][Vecs];
  PYOPS_UNROLL
  for (int r = 0; r < Rows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) acc[r][v] = set1(0.0f);
  }
  const int64_t line = round_up(t.cols, kConvLanes), pixels = t.pixels, step = t.step;
  const float* w = static_cast<const float*>(t.w) + c;
  const void* const* rows = kStep ? t.rows : t.rows + row;
  for (int64_t s = t.segments; s > 0; --s, rows += pixels, w += line) {
    F32 taps[Vecs];
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) taps[v] = load(w + v * kLanes);
    const char* first = kStep ? static_cast<const char*>(*rows) + row * step : nullptr;
    PYOPS_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const void* from = kStep ? first + r * step : rows[r];
      PYOPS_UNROLL
      for (int v = 0; v < Vecs; ++v) {
        const F32 x = load_float(from, kType, c + v * kLanes, Vecs > 1 ? kLanes : lanes);
        acc[r][v] = fma(x, taps[v], acc[r][v]);
      }
    }
  }
  PYOPS_UNROLL
  for (int r = 0; r < Rows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) store(sums + r * kDepthwiseCols + v * kLanes, acc[r][v]);
  }
}

template <Dtype kType, int Vecs, int Rows = kDepthwiseRows>
inline void depthwise_sums_of(const ConvTile& t, int row, int rows, int64_t c, int lanes,
                              float* sums) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return depthwise_sums_of<kType, Vecs, Rows - 1>(t, row, rows, c, lanes, sums);
  }
  if (t.step != 0) return depthwise_sums<kType, Rows, Vecs, true>(t, row, c, lanes, sums);
  depthwise_sums<kType, Rows, Vecs, false>(t, row, c, lanes, sums);
}

template <Dtype kType>
inline void depthwise_of_vectors(const ConvTile& t) {
  alignas(64) float sums[kDepthwiseRows * kDepthwiseCols];
  const FinishFloatFn finish = finish_float_for(*t.epilogue);
  for (int row = 0; row < t.pixels; row += kDepthwiseRows) {
    const int rows = static_cast<int>(min64(kDepthwiseRows, t.pixels - row));
    int cols = 0;
    for (int c = 0; c < t.cols; c += cols) {
      if (t.cols - c >= kDepthwiseCols) {
        cols = kDepthwiseCols;
        depthwise_sums_of<kType, kDepthwiseVecs>(t, row, rows, c, kLanes, sums);
      } else if (t.cols - c >= 2 * kLanes) {
        cols = 2 * kLanes;
        depthwise_sums_of<kType, 2>(t, row, rows, c, kLanes, sums);
      } else {
        cols = static_cast<int>(min64(kLanes, t.cols - c));
        depthwise_sums_of<kType, 1>(t, row, rows, c, cols, sums);
      }
      finish(*t.epilogue, sums, kDepthwiseCols, t.m0 + row, rows, c, cols);
    }
  }
}

inline void depthwise_of_vectors(const ConvTile& t) {
  if (t.type == Dtype::bf16) return depthwise_of_vectors<Dtype::bf16>(t);
  depthwise_of_vectors<Dtype::f32>(t);
}
