// Tiles on vectors with output channels in lanes. Include after epilogue_float.inl.h and
// fused_*.inl.h. The kernel file provides kMr, kTileVecs, kNr = kTileVecs * kLanes, and
// dot(a, b, c) = c + a b of kPair products to a lane.

// Rows pixels by Vecs vectors: sums [Rows][kNr]. Each step of K loads Vecs vectors of the panel and
// broadcasts one value, or pair, of each pixel, and prefetches a line of the next panel, which a
// layer of few pixels would otherwise wait for.
template <int Rows, int Vecs>
__attribute__((noinline)) void conv_sums(const ConvTile& t, float* sums) {
  F32 acc[Rows][Vecs];
  PYOPS_UNROLL
  for (int r = 0; r < Rows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) acc[r][v] = set1(0.0f);
  }
  const float* w = static_cast<const float*>(t.w);
  const void* const* rows = t.rows;
  const char* ahead = t.ahead;
  const int64_t depth = t.depth / kPair, offset = t.offset / kPair;
  for (int64_t s = t.segments; s > 0; --s, rows += Rows) {
    const float* x[Rows];
    PYOPS_UNROLL
    for (int r = 0; r < Rows; ++r) x[r] = static_cast<const float*>(rows[r]) + offset;
    for (int64_t d = 0; d < depth; ++d, w += kNr, ahead += 64) {
      __builtin_prefetch(ahead, 0, 2);
      F32 line[Vecs];
      PYOPS_UNROLL
      for (int v = 0; v < Vecs; ++v) line[v] = load(w + v * kLanes);
      PYOPS_UNROLL
      for (int r = 0; r < Rows; ++r) {
        const F32 value = set1(x[r][d]);
        PYOPS_UNROLL
        for (int v = 0; v < Vecs; ++v) acc[r][v] = dot(value, line[v], acc[r][v]);
      }
    }
  }
  PYOPS_UNROLL
  for (int r = 0; r < Rows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) store(sums + r * kNr + v * kLanes, acc[r][v]);
  }
}

template <int Vecs, int Rows = kMr>
inline void conv_sums_of(const ConvTile& t, float* sums) {
  if constexpr (Rows > 1) {
    if (t.pixels < Rows) return conv_sums_of<Vecs, Rows - 1>(t, sums);
  }
  conv_sums<Rows, Vecs>(t, sums);
}

inline void tile_of_vectors(const ConvTile& t) {
  alignas(64) float sums[kMr * kNr];
  // Those of the next tile: of a small K, this one's would come too late.
  prefetch_output(*t.epilogue, t.m0 + t.pixels, t.pixels, t.n0, t.cols);
  prefetch_residual(*t.epilogue, t.m0 + t.pixels, t.pixels, t.n0, t.cols);
  if (t.cols > kLanes) {
    conv_sums_of<kTileVecs>(t, sums);
  } else {
    conv_sums_of<1>(t, sums);
  }
  finish_float_for (*t.epilogue)(*t.epilogue, sums, kNr, t.m0, t.pixels, t.n0, t.cols);
}
