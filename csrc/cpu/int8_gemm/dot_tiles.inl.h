// The tiles of a block whose kernel has the columns of w in lanes, whatever its steps over w are.
// Include after epilogue.inl.h and ahead.inl.h; the kernel file provides kMr, kTileVecs, kTileCols
// = kTileVecs * kLanes = nr, and the body of `tile`.

// Where the rows of a tile and their taps are, from b.a on.
struct Places {
  int64_t row[kMr];
  const int64_t* tap;
  int64_t taps, depth;
};

// Direct::floats: float(sum) * scale_a[row] * scale_w[col] + bias[col], but at least `low`.
struct FloatTile {
  const float *scale_a, *scale_w, *bias;  // the last two may be null
  float* out;
  int64_t scale_a_stride, ld;
  float low;
};

// What becomes of the sums of a tile: they go to `acc`, or straight to the output.
struct Target {
  int32_t* acc;
  DirectTile direct;
  FloatTile floats;
};

// The sums of kRows rows by kVecs vectors of columns begin with start[column]. kAhead: prefetches.
template <bool kAhead, Direct kDirect, int kRows, int kVecs>
__attribute__((noinline)) void tile(const Int8GemmBlock& b, const Places& places,
                                    const int32_t* start, Ahead ahead, const Target& target);

template <int kRows, int kVecs>
inline __attribute__((always_inline)) void begin_tile(const int32_t* start,
                                                      I32 (&sum)[kRows][kVecs]) {
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) sum[r][v] = load(start + v * kLanes);
  }
}

template <int kRows, int kVecs>
inline __attribute__((always_inline)) void end_floats(const FloatTile& f,
                                                      const I32 (&sum)[kRows][kVecs]) {
  F32 scale_w[kVecs], bias[kVecs];
  PYOPS_UNROLL
  for (int v = 0; v < kVecs; ++v) {
    scale_w[v] = f.scale_w ? load(f.scale_w + v * kLanes) : set1(1.0f);
    bias[v] = f.bias ? load(f.bias + v * kLanes) : set1(-0.0f);  // see finish_columns
  }
  const F32 low = set1(f.low);
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const F32 scale_a = set1(f.scale_a[r * f.scale_a_stride]);
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      const F32 y = add(mul(mul(to_f32(sum[r][v]), scale_a), scale_w[v]), bias[v]);
      store(f.out + r * f.ld + v * kLanes, max(low, y));  // NaN comes through
    }
  }
}

template <Direct kDirect, int kRows, int kVecs>
inline __attribute__((always_inline)) void end_tile(const Target& target,
                                                    const I32 (&sum)[kRows][kVecs]) {
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    if constexpr (kDirect == Direct::floats) {
      if (r == 0) end_floats(target.floats, sum);
    } else if constexpr (kDirect != Direct::none) {
      store_direct<kDirect, kVecs>(target.direct, r * target.direct.ld, sum[r]);
    } else {
      PYOPS_UNROLL
      for (int v = 0; v < kVecs; ++v) store(target.acc + r * kTileCols + v * kLanes, sum[r][v]);
    }
  }
}

using TileFn = void (*)(const Int8GemmBlock&, const Places&, const int32_t*, Ahead, const Target&);

template <bool kAhead, Direct kDirect, int kRows = kMr, int kVecs = kTileVecs>
inline TileFn tile_of(int rows, int vecs) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tile_of<kAhead, kDirect, kRows - 1, kVecs>(rows, vecs);
  }
  if constexpr (kVecs > 1) {
    if (vecs < kVecs) return tile_of<kAhead, kDirect, kRows, kVecs - 1>(rows, vecs);
  }
  return tile<kAhead, kDirect, kRows, kVecs>;
}

template <bool kAhead>
inline TileFn tile_of(Direct direct, int rows, int vecs) {
  if constexpr (kPackedVecs > 0) {
    if (direct == Direct::plain) return tile_of<kAhead, Direct::plain>(rows, vecs);
    if (direct == Direct::residual) return tile_of<kAhead, Direct::residual>(rows, vecs);
  }
  return tile_of<kAhead, Direct::none>(rows, vecs);
}

inline TileFn tile_of(bool ahead, Direct direct, int rows, int vecs) {
  if constexpr (kTilesAhead < kBlockRows) {
    if (!ahead) return tile_of<false>(direct, rows, vecs);
  }
  return tile_of<true>(direct, rows, vecs);
}

// Goes through the rows of a block in order; places without a division for each.
class RowPlaces {
 public:
  explicit RowPlaces(const Int8GemmBlock& b) : step_(b.lda_bytes) {
    if (!b.taps) return;
    width_ = b.taps->width;
    x_ = b.taps->x0;
    wrap_ = (b.taps->pitch - width_) * step_;
  }
  void next(int rows, int64_t* to) {
    if (width_ < 0) {
      PYOPS_UNROLL
      for (int r = 0; r < kMr; ++r) to[r] = at_ + r * step_;
      at_ += rows * step_;
      return;
    }
    for (int r = 0; r < rows; ++r, at_ += step_, ++x_) {
      if (x_ == width_) x_ = 0, at_ += wrap_;
      to[r] = at_;
    }
  }

 private:
  int64_t step_, at_ = 0, x_ = 0, width_ = -1, wrap_ = 0;
};
