// Tiles of a sparse weight (lists.h). Include behind tile.inl.h; the kernel file provides
// column_values<whole>(gather, row, d): the vector of a row's values of k from d on; unless it is a
// whole one, zeros behind the segment.

// As conv_sums, over the k that are listed. kColumns: x comes as columns.
template <int Rows, int Vecs, bool kColumns>
__attribute__((noinline)) void list_sums(const ConvTile& t, float* sums) {
  F32 acc[Rows][Vecs];
  PYOPS_UNROLL
  for (int r = 0; r < Rows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) acc[r][v] = set1(0.0f);
  }
  const float* w = static_cast<const float*>(t.w);
  const float* columns = static_cast<const float*>(t.list->columns);
  const void* const* rows = t.rows;
  const uint16_t* at = t.list->at;
  const char* ahead = t.ahead;
  const int64_t depth = (t.depth + kPair - 1) / kPair;
  for (int64_t s = 0; s < t.segments; ++s, rows += Rows, columns += depth * kLanes) {
    const float* x[Rows];
    PYOPS_UNROLL
    for (int r = 0; r < Rows; ++r) {
      x[r] = kColumns ? columns + r : static_cast<const float*>(rows[r]) + t.offset / kPair;
    }
    for (const uint16_t* end = at + t.list->counts[s]; at != end;
         ++at, w += Vecs * kLanes, ahead += 64) {
      __builtin_prefetch(ahead, 0, 2);
      const int64_t k = kColumns ? int64_t{*at} * kLanes : *at;
      F32 line[Vecs];
      PYOPS_UNROLL
      for (int v = 0; v < Vecs; ++v) line[v] = load(w + v * kLanes);
      PYOPS_UNROLL
      for (int r = 0; r < Rows; ++r) {
        const F32 value = set1(kColumns ? columns[k + r] : x[r][k]);
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

template <int Vecs, bool kColumns, int Rows = kMr>
inline void list_sums_of(const ConvTile& t, float* sums) {
  if constexpr (Rows > 1) {
    if (t.pixels < Rows) return list_sums_of<Vecs, kColumns, Rows - 1>(t, sums);
  }
  list_sums<Rows, Vecs, kColumns>(t, sums);
}

inline void list_tile_of_vectors(const ConvTile& t) {
  alignas(64) float sums[kMr * kNr];
  prefetch_output(*t.epilogue, t.m0 + t.pixels, t.pixels, t.n0, t.cols);
  prefetch_residual(*t.epilogue, t.m0 + t.pixels, t.pixels, t.n0, t.cols);
  const bool wide = t.list->nr > kLanes;
  if (t.list->columns) {
    wide ? list_sums_of<kTileVecs, true>(t, sums) : list_sums_of<1, true>(t, sums);
  } else {
    wide ? list_sums_of<kTileVecs, false>(t, sums) : list_sums_of<1, false>(t, sums);
  }
  finish_float_for (*t.epilogue)(*t.epilogue, sums, kNr, t.m0, t.pixels, t.n0, t.cols);
}

// kLanes places of all pixels from place d on, or `count` of them.
template <bool kWhole>
inline void gather_column_vectors(const ConvGather& g, const void* const* rows, int64_t d,
                                  int64_t count, float* out) {
  F32 values[kLanes];
  PYOPS_UNROLL
  for (int i = 0; i < kLanes; ++i) values[i] = column_values<kWhole>(g, rows[i], d * kPair);
  transpose(values);
  PYOPS_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    if (kWhole || i < count) store(out + i * kLanes, values[i]);
  }
}

// The segments of all pixels, [segment][k / kPair][kLanes].
inline void gather_columns(const ConvGather& g) {
  static_assert(kLanes == (kMr + 7) / 8 * 8, "the columns of lists.h");
  const int64_t depth = (g.depth + kPair - 1) / kPair, whole = g.depth / kPair;
  float* out = static_cast<float*>(g.out);
  const void* rows[kLanes];
  for (int64_t s = 0; s < g.segments; ++s, out += depth * kLanes) {
    for (int i = 0; i < kLanes; ++i) {
      rows[i] = g.rows[s * g.pixels + (i < g.pixels ? i : g.pixels - 1)];
    }
    int64_t d = 0;
    for (; d + kLanes <= whole; d += kLanes) {
      gather_column_vectors<true>(g, rows, d, kLanes, out + d * kLanes);
    }
    if (d < depth) gather_column_vectors<false>(g, rows, d, depth - d, out + d * kLanes);
  }
}
