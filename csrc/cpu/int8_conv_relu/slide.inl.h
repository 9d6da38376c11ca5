// Windows of 3 x 3 taps that overlap along the row, from uint8 codes to codes: a column, its rows
// interleaved, stays in registers while it is added to the pixels that it belongs to. Only half of
// a block's vectors are made at a time, so that their weights and operands do so, too; `between`
// keeps the first half's codes as int16. Included by depthwise.inl.h.

inline bool slides(const DepthwiseTask& t) {
  return slides(*t.shape) && !t.x_signed && t.epilogue->direct >= DirectCodes::bounded;
}

// What becomes of the sums: `low`s are the first half of a block. Units multiply once.
enum class Slide : int { low, low_unit, u8, u8_unit, s8 };

// Half of the vectors of a block: weights by columns of the window, and operands.
struct HalfBlock {
  I32 w[3][kParts][2], start[2];
  F32 scale_a, scale[2], bias[2], inverse_scale;
  int32_t zero, low, high;
};

template <bool kHigh, int kHalves>
__attribute__((always_inline)) inline HalfBlock half_of(const Block<4, kHalves>& b) {
  const Shared d = shared_of(*b.t.epilogue, b.c0);
  HalfBlock half = {{}, {}, set1(d.scale_a), {}, {}, set1(d.inverse_scale), d.zero, d.low, d.high};
  PYOPS_UNROLL
  for (int q = 0; q < 2; ++q) {
    const int from = kHigh ? 2 + q : q;
    PYOPS_UNROLL
    for (int k = 0; k < 3; ++k) {
      PYOPS_UNROLL
      for (int p = 0; p < kParts; ++p) half.w[k][p][q] = b.weights[(k * kParts + p) * 4 + from];
    }
    half.start[q] = b.start[from];
    half.scale[q] = as_f32(b.scale[from]), half.bias[q] = as_f32(b.bias[from]);
  }
  return half;
}

// A row of the output, or two for half blocks: where the next column of their windows is, and where
// codes go.
template <int kHalves>
struct SlideRows {
  const uint8_t* at[kHalves][3];
  int64_t step[kHalves][3];
  const uint8_t* zeros;
  int64_t column, width;
  I32* between;
  uint8_t* out[kHalves];
  int64_t ld;
};

// Without a second row that is the first one once more.
template <int kHalves>
__attribute__((always_inline)) inline void start_rows(const Block<4, kHalves>& b, int64_t row,
                                                      SlideRows<kHalves>* to) {
  const ConvShape& s = *b.t.shape;
  const Epilogue& e = *b.t.epilogue;
  PYOPS_UNROLL
  for (int h = 0; h < kHalves; ++h) {
    const int64_t own = min64(row + h, b.t.row_end - 1);
    const TapRow* rows = b.t.rows + (own - b.t.row) * 3;
    PYOPS_UNROLL
    for (int i = 0; i < 3; ++i) {
      to->step[h][i] = rows[i].step;
      to->at[h][i] = codes_of(rows[i]) + b.c0 - s.left * rows[i].step;
    }
    to->out[h] = static_cast<uint8_t*>(e.out) + own * s.ow * e.ld + b.c0;
  }
  to->zeros = b.zeros, to->column = -s.left, to->width = s.w, to->ld = e.ld;
}

template <bool kHigh, int kHalves>
__attribute__((always_inline)) inline void next_column(SlideRows<kHalves>& rows, I32 (&x)[2]) {
  I32 r[4];
  if (static_cast<uint64_t>(rows.column) < static_cast<uint64_t>(rows.width)) {
    PYOPS_UNROLL
    for (int i = 0; i < 3; ++i) {
      if constexpr (kHalves == 2) {
        r[i] = load_pair(rows.at[0][i], rows.at[1][i]);
      } else {
        r[i] = load_bits(rows.at[0][i]);
      }
    }
  } else {
    PYOPS_UNROLL
    for (int i = 0; i < 3; ++i) r[i] = load_bits(rows.zeros);
  }
  ++rows.column;
  PYOPS_UNROLL
  for (int h = 0; h < kHalves; ++h) {
    PYOPS_UNROLL
    for (int i = 0; i < 3; ++i) rows.at[h][i] += rows.step[h][i];
  }
  r[3] = r[2];
  interleave_half<3, kHigh>(r, x);
}

// next = sums + a column of taps.
template <int kTaps = kParts>
__attribute__((always_inline)) inline void add_column(const I32 (&w)[kTaps][2], const I32 (&x)[2],
                                                      const I32 (&sums)[2], I32 (&next)[2]) {
  PYOPS_UNROLL
  for (int q = 0; q < 2; ++q) {
    I32 parts[kTaps];
    split<false>(x[q], parts);
    next[q] = sums[q];
    PYOPS_UNROLL
    for (int p = 0; p < kTaps; ++p) next[q] = dot(next[q], parts[p], w[p][q]);
  }
}

template <Slide kSlide>
constexpr bool multiplies_once() {
  return kSlide == Slide::low_unit || kSlide == Slide::u8_unit;
}

// The first step from sums to codes.
template <Slide kSlide>
inline void start_values(const HalfBlock& b, const I32 (&sums)[2], F32 (&v)[2]) {
  PYOPS_UNROLL
  for (int q = 0; q < 2; ++q) {
    v[q] = to_f32(sums[q]);
    if (!multiplies_once<kSlide>()) v[q] = mul(v[q], b.scale_a);
  }
}

// The other steps, and the next pixel of the output.
template <Slide kSlide, int kHalves>
__attribute__((always_inline)) inline void put_values(const HalfBlock& b, const F32 (&values)[2],
                                                      SlideRows<kHalves>& rows) {
  I32 codes[2];
  PYOPS_UNROLL
  for (int q = 0; q < 2; ++q) {
    F32 v = add(mul(values[q], b.scale[q]), b.bias[q]);
    if (!multiplies_once<kSlide>()) v = mul(v, b.inverse_scale);
    codes[q] = to_i32(v);
  }
  const I32 half = pack_half(codes, b.zero);
  if constexpr (kSlide < Slide::u8) {
    *rows.between++ = half;
  } else {
    const I32 all = pack_bytes<kSlide != Slide::s8>(*rows.between++, half, b.low, b.high);
    if constexpr (kHalves == 1) {
      store_codes_wide(rows.out[0], all);
    } else {
      store_half<0>(rows.out[0], all);
      store_half<1>(rows.out[1], all);
    }
    PYOPS_UNROLL
    for (int h = 0; h < kHalves; ++h) rows.out[h] += rows.ld;
  }
}

// One pixel takes several latencies in a row: what a round makes of columns, sums and values was
// made by the round before it, so that no instruction waits for long where others could be.
template <Slide kSlide, int kHalves, int kStride>
__attribute__((always_inline)) inline void slide_pixels(const HalfBlock& b, int64_t count,
                                                        SlideRows<kHalves>& rows) {
  constexpr bool kHigh = kSlide >= Slide::u8;
  I32 x[2], y[2], sums[2], next[2], done[2];  // next: of the pixel behind that of sums
  F32 values[2];
  next_column<kHigh>(rows, x);
  add_column(b.w[0], x, b.start, next);
  next_column<kHigh>(rows, x);
  if constexpr (kStride == 1) {
    add_column(b.w[1], x, next, sums);
    add_column(b.w[0], x, b.start, next);
    next_column<kHigh>(rows, x);
  } else {
    next_column<kHigh>(rows, y);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (i > 1) put_values<kSlide>(b, values, rows);
    if (i > 0) start_values<kSlide>(b, done, values);
    if constexpr (kStride == 1) {
      add_column(b.w[2], x, sums, done);
      add_column(b.w[1], x, next, sums);
      add_column(b.w[0], x, b.start, next);
    } else {
      add_column(b.w[1], x, next, sums);
      add_column(b.w[2], y, sums, done);
      add_column(b.w[0], y, b.start, next);
      next_column<kHigh>(rows, x);
    }
    next_column<kHigh>(rows, kStride == 1 ? x : y);
  }
  if (count > 1) put_values<kSlide>(b, values, rows);
  start_values<kSlide>(b, done, values);
  put_values<kSlide>(b, values, rows);
}

// Rows [row, row_end) of half a block.
template <Slide kSlide, int kHalves, int kStride>
__attribute__((noinline)) void slide(const Block<4, kHalves>& b, int64_t row, int64_t row_end) {
  constexpr bool kHigh = kSlide >= Slide::u8;
  const HalfBlock half = half_of<kHigh>(b);
  SlideRows<kHalves> rows;
  rows.between = b.columns;
  for (; row < row_end; row += kHalves) {
    start_rows(b, row, &rows);
    slide_pixels<kSlide, kHalves, kStride>(half, b.t.shape->ow, rows);
  }
}

template <Slide kLow, Slide kSlide, int kHalves>
inline void slide_rows(const Block<4, kHalves>& b) {
  const int64_t step = rows_between(*b.t.shape) * kHalves;
  const bool one = b.t.shape->stride_w == 1;
  for (int64_t row = b.t.row; row < b.t.row_end; row += step) {
    const int64_t end = min64(row + step, b.t.row_end);
    if (one) {
      slide<kLow, kHalves, 1>(b, row, end);
      slide<kSlide, kHalves, 1>(b, row, end);
    } else {
      slide<kLow, kHalves, 2>(b, row, end);
      slide<kSlide, kHalves, 2>(b, row, end);
    }
  }
}

template <int kHalves>
inline void slide_rows(const Block<4, kHalves>& b) {
  const Epilogue& e = *b.t.epilogue;
  if (e.out_type == Dtype::s8) return slide_rows<Slide::low, Slide::s8>(b);
  if (e.direct == DirectCodes::unit) return slide_rows<Slide::low_unit, Slide::u8_unit>(b);
  slide_rows<Slide::low, Slide::u8>(b);
}
