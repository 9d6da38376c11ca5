// Tiles of a sparse weight (lists.h) in plain C++. Include behind plain_tile.inl.h.

template <int kTileMr, int kTileNr>
void plain_list_tile(const ConvTile& t) {
  float sums[kTileMr * kTileNr] = {};
  const float* w = static_cast<const float*>(t.w);
  const float* columns = static_cast<const float*>(t.list->columns);
  const uint16_t* at = t.list->at;
  const int64_t column = (kTileMr + 7) / 8 * 8;
  for (int64_t s = 0; s < t.segments; ++s) {
    const void* const* rows = t.rows + s * t.pixels;
    for (uint32_t i = t.list->counts[s]; i > 0; --i, ++at, w += t.list->nr) {
      for (int r = 0; r < t.pixels; ++r) {
        const float x =
            columns ? columns[*at * column + r] : plain_value(Dtype::f32, rows[r], t.offset + *at);
        for (int c = 0; c < t.cols; ++c) sums[r * kTileNr + c] += x * w[c];
      }
    }
    if (columns) columns += t.depth * column;
  }
  finish_float_for (*t.epilogue)(*t.epilogue, sums, kTileNr, t.m0, t.pixels, t.n0, t.cols);
}

template <int kTileMr>
void plain_columns(const ConvGather& g) {
  const int64_t column = (kTileMr + 7) / 8 * 8;
  float* out = static_cast<float*>(g.out);
  for (int64_t s = 0; s < g.segments; ++s) {
    for (int64_t d = 0; d < g.depth; ++d, out += column) {
      for (int r = 0; r < g.pixels; ++r) {
        out[r] = plain_value(g.type, g.rows[s * g.pixels + r], g.offset + d);
      }
    }
  }
}
