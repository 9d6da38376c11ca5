// Panels by rows of x. Where the rows of a tile fit into the first-level cache, all panels pass
// them before the next tile: a panel skips from line to line of each row, which the second-level
// cache delivers more slowly than the one stream of weights. Otherwise all tiles pass a panel.
// Include after dot_tiles.inl.h and `tile`.

// Most bytes of the rows of such a tile, which is as high as that allows, and the least rows that
// still hide the latency of a multiplication.
constexpr int64_t kTileBytes = 32 << 10;
constexpr int kLeastRows = kMr * 2 / 3;

inline TileFn floats_tile_of(bool ahead, int rows, int vecs) {
  if constexpr (kTilesAhead < kBlockRows) {
    if (!ahead) return tile_of<false, Direct::floats>(rows, vecs);
  }
  return tile_of<true, Direct::floats>(rows, vecs);
}

class PanelRun {
 public:
  explicit PanelRun(const Int8GemmBlock& first);
  void run();

 private:
  void pass(const Int8GemmBlock* panels, int count);
  void multiply(const Int8GemmBlock& b, int64_t t, int64_t r0, int rows);
  TileFn tile_for(Direct direct, int rows, int vecs);

  const Int8GemmBlock& b_;
  const bool per_row_;  // zero points
  const int32_t zero_;
  Epilogue epilogue_;  // without what sums start from
  Direct direct_;
  FinishFn finish_;
  Target target_;
  Places places_;
  const int64_t no_taps_ = 0;
  int mr_ = kMr;
  int64_t tiles_;
  bool together_, pays_;
  TileFn tile_ = nullptr;  // of tile_for's last arguments
  int tile_rows_ = 0, tile_vecs_ = 0;
  Direct tile_direct_ = Direct::none;
  const float one_ = 1.0f;
  alignas(64) int32_t start_[kTileCols], acc_[kMr * kTileCols];
};

inline PanelRun::PanelRun(const Int8GemmBlock& first)
    : b_(first),
      per_row_(first.epilogue->zero_a && first.epilogue->zero_a_stride),
      zero_(per_row_ ? 0 : zero_of(*first.epilogue, 0)),
      epilogue_(*first.epilogue),
      places_{{}, &no_taps_, 1, first.k} {
  if (b_.taps) places_ = {{}, b_.taps->at, b_.taps->count, b_.taps->depth};
  const int64_t fit = kTileBytes / max64(1, places_.taps * places_.depth);
  together_ = b_.panels > 1 && fit >= min64(kLeastRows, b_.rows);
  if (together_) mr_ = static_cast<int>(min64(kMr, fit));
  tiles_ = (b_.rows + mr_ - 1) / mr_;
  pays_ = tiles_ <= kTilesAhead;
  if (!per_row_) epilogue_.zero_a = nullptr, epilogue_.zero_shift = 0;
  direct_ = per_row_ ? Direct::none : direct_for(epilogue_);
  const Epilogue& e = epilogue_;
  const bool simple = !e.zero_a && !e.residual && !e.gate && e.activation <= Activation::relu;
  if (kPackedVecs > 0 && simple && e.out_type == Dtype::f32) direct_ = Direct::floats;
  finish_ = finish_for(epilogue_);
  target_.acc = acc_;
  target_.floats.ld = e.ld;
  target_.floats.scale_a_stride = e.scale_a ? e.scale_a_stride : 0;
  target_.floats.low = e.activation == Activation::relu ? 0.0f : -__builtin_inff();
}

inline void PanelRun::run() {
  const int count = together_ ? b_.panels : 1;
  for (int i = 0; i < b_.panels; i += count) pass(&b_ + i, count);
}

// Rows are spread evenly over tiles, as in block_of_tiles.
inline void PanelRun::pass(const Int8GemmBlock* panels, int count) {
  RowPlaces row_places(b_);
  const int least = static_cast<int>(b_.rows / tiles_);
  const int64_t longer = tiles_ - b_.rows % tiles_;
  int64_t r0 = 0;
  for (int64_t t = 0; t < tiles_; ++t) {
    const int rows = least + (t >= longer);
    row_places.next(rows, places_.row);
    for (int i = 0; i < count; ++i) multiply(panels[i], t, r0, rows);
    r0 += rows;
  }
}

inline TileFn PanelRun::tile_for(Direct direct, int rows, int vecs) {
  if (rows == tile_rows_ && vecs == tile_vecs_ && direct == tile_direct_) return tile_;
  tile_rows_ = rows, tile_vecs_ = vecs, tile_direct_ = direct;
  if constexpr (kPackedVecs > 0) {
    if (direct == Direct::floats) return tile_ = floats_tile_of(pays_, rows, vecs);
  }
  return tile_ = tile_of(pays_, direct, rows, vecs);
}

// Tile t of a panel.
inline void PanelRun::multiply(const Int8GemmBlock& b, int64_t t, int64_t r0, int rows) {
  const Epilogue& e = epilogue_;
  for (int j = 0; j < b.cols; j += kLanes) {
    const int lanes = b.cols - j < kLanes ? b.cols - j : kLanes;
    const I32 w_sum = zero_ ? load(e.w_sum + b.n0 + j, lanes) : set1_i32(0);
    store(start_ + j, sub(set1_i32(0), mul(set1_i32(zero_), w_sum)));
  }
  const bool floats = direct_ == Direct::floats;
  const Direct direct = floats && b.cols % kLanes != 0 ? Direct::none : direct_;
  if (floats) {
    target_.floats.scale_a = e.scale_a ? e.scale_a + r0 * e.scale_a_stride : &one_;
    target_.floats.scale_w = e.scale_w ? e.scale_w + b.n0 : nullptr;
    target_.floats.bias = e.bias ? e.bias + b.n0 : nullptr;
    target_.floats.out = static_cast<float*>(e.out) + r0 * e.ld + b.n0;
  } else if (direct != Direct::none) {
    start_direct(e, b.n0, b.cols, &target_.direct);
    advance(&target_.direct, static_cast<int>(r0));
  }
  Ahead ahead = {};
  if (pays_) ahead = ahead_of(b.w, b.step_bytes, b.steps, together_ ? 0 : t, tiles_);
  prefetch_output(e, r0, rows, b.n0, b.cols);
  tile_for(direct, rows, (b.cols + kLanes - 1) / kLanes)(b, places_, start_, ahead, target_);
  if (direct == Direct::none) finish_(e, acc_, kTileCols, r0, rows, b.n0, b.cols);
}

inline void block_of_panels(const Int8GemmBlock& b) { PanelRun(b).run(); }
