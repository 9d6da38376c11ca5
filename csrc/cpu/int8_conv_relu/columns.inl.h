// Columns and weights of a depthwise convolution in scratch memory. Include after epilogue.inl.h,
// with:
//
//   kWideVecs               vectors of a wide block of channels; 0: there is none
//   kPixels                 pixels of the output whose sums are in registers together
//   kStripBytes             scratch for the columns of a strip
//   kParts                  dwords that hold the taps of 3 or 4 rows
//   bit_xor(a, b)
//   split<weights>(taps, to)  a dword of 4 taps as kParts dwords; the first holds taps 0 and 1 only
//                             if kParts is 1, else taps 0 and 2
//   dot(acc, x, w)
//   wide only: interleave_half<rows, high>(codes, to): taps of a wide block of codes, channel
//   16 L + 4 q + d in dword d of 128-bit lane L of to[q], for q = 0, 1, or 2, 3 if high;
//   pack_half(codes, zero): those of two q plus zero, as int16;  pack_bytes<unsigned>(half, high
//   half, low, high): all as bytes, clamped, in order;
//   load_pair(p, q): half a block from each;  store_codes_wide(p, v);  store_half<half>(p, v)
//
// A dword holds the taps of one channel in up to 4 rows of the window. So a column of the image,
// its rows interleaved once, serves every window that it is in:
//
//   columns [column][entry][vec]      of a strip of the output; entry: (group of 4 rows, part)
//   weights [kx][entry][vec]
//   acc[pixel][vec] += dot(columns[pixel * stride + kx * dilation][entry], weights[kx][entry])
//
// Half a block of channels makes a whole one with that of the next pixel: kHalves is 2. What is
// said of pixels below is then true of pairs of them, and a column is one and that a stride
// further.

struct Plan {
  int entries;
  bool gathered;                 // each pixel has kw columns of its own: windows hardly overlap
  int64_t pixel_step, tap_step;  // in columns
  int64_t tail;                  // columns of one pixel
  int64_t pixels, strip;         // of a row; of a strip
  int64_t columns;               // of a strip
};

inline int entries_of(int64_t kh) {
  const int64_t rest = kh % 4;
  return static_cast<int>(kh / 4 * kParts + (rest > 1 ? kParts : rest));
}

inline Plan plan_of(const ConvShape& s, int vecs, int halves) {
  Plan p = {};
  p.entries = entries_of(s.kh);
  p.pixels = (s.ow + halves - 1) / halves;
  p.tail = (s.kw - 1) * s.dilation_w + 1;
  p.pixel_step = s.stride_w * halves;
  p.tap_step = s.dilation_w;
  p.gathered = kPixels * s.kw < (kPixels - 1) * p.pixel_step + p.tail;
  if (p.gathered) p.tail = p.pixel_step = s.kw, p.tap_step = 1;
  const int64_t fit = kStripBytes / (p.entries * vecs * kLanes * 4);
  const int64_t most = max64(kPixels, fit < p.tail ? 0 : (fit - p.tail) / p.pixel_step + 1);
  const int64_t strips = max64(1, (p.pixels + most - 1) / most);
  p.strip = max64(kPixels, min64(most, round_up((p.pixels + strips - 1) / strips, kPixels)));
  p.columns = (p.strip - 1) * p.pixel_step + p.tail;
  return p;
}

// slide.inl.h: windows of 3 x 3 taps that overlap along the row.
inline bool slides(const ConvShape& s) {
  return s.kh == 3 && s.kw == 3 && s.dilation_w == 1 && s.stride_w <= 2;
}

constexpr int64_t kBetweenBytes = 16 * 1024;

// Rows of the output whose codes are in `between` together.
inline int64_t rows_between(const ConvShape& s) {
  return max64(1, kBetweenBytes / (s.ow * kLanes * 4));
}

inline int64_t scratch_of(const ConvShape& s) {
  int64_t vecs = 0;
  for (int halves = 0; halves < 3; ++halves) {
    const int own = halves ? kWideVecs : 1;
    const Plan p = plan_of(s, own ? own : 1, halves ? halves : 1);
    vecs = max64(vecs, ((p.columns + s.kw) * p.entries + 3) * own);
  }
  if (kSlides && slides(s)) {
    vecs = max64(vecs, (s.kw * entries_of(s.kh) + 3) * kWideVecs + rows_between(s) * s.ow);
  }
  return round_up(vecs * kLanes * 4, 64);
}

// Every 4 channels of a wide block to where interleave() has them; others as they are.
template <int kVecs, int kHalves>
inline void reorder(const void* from, I32* to, int lanes) {
  if constexpr (kVecs == 1) {
    store(reinterpret_cast<int32_t*>(to), load(static_cast<const int32_t*>(from), lanes));
  } else {
    const char* source = static_cast<const char*>(from);
    char* target = reinterpret_cast<char*>(to);
    constexpr int kBytes = kVecs * kLanes * 4 / kHalves;
    for (int l = 0; l < kLanes / 4; ++l) {
      for (int q = 0; q < 4; ++q) {
        __builtin_memcpy(target + q * kLanes * 4 + l * 16, source + (l * 4 + q) * 16 % kBytes, 16);
      }
    }
  }
}

// One block of channels of a task.
template <int kVecs, int kHalves>
struct Block {
  const DepthwiseTask& t;
  Plan plan;
  int64_t c0;
  int lanes;  // of the last vector
  const uint8_t* zeros;
  I32 *weights, *columns, *start, *scale, *bias;
};

// Where each row's codes are; with two halves those of the next pixel, too.
struct Ends {
  const uint8_t *of[4], *next[4];
};

template <int kVecs, int kHalves, int kRows, bool kWeights>
inline void taps_of(const Ends& p, int lanes, I32 flip, I32* to) {
  I32 taps[kVecs];
  if constexpr (kVecs > 1) {
    const I32 none = set1_i32(0);
    I32 r[4] = {none, none, none, none};
    PYOPS_UNROLL
    for (int i = 0; i < kRows; ++i) {
      if constexpr (kHalves == 2) {
        r[i] = bit_xor(load_pair(p.of[i], p.next[i]), flip);
      } else {
        r[i] = bit_xor(load_bits(p.of[i]), flip);
      }
    }
    interleave_half<kRows, false>(r, taps);
    interleave_half<kRows, true>(r, taps + 2);
  } else {
    taps[0] = load_u8(p.of[0], lanes);
    if constexpr (kRows > 1) taps[0] = add(taps[0], shift_left<8>(load_u8(p.of[1], lanes)));
    if constexpr (kRows > 2) taps[0] = add(taps[0], shift_left<16>(load_u8(p.of[2], lanes)));
    if constexpr (kRows > 3) taps[0] = add(taps[0], shift_left<24>(load_u8(p.of[3], lanes)));
    taps[0] = bit_xor(taps[0], flip);
  }
  PYOPS_UNROLL
  for (int q = 0; q < kVecs; ++q) {
    I32 parts[kParts];
    split<kWeights>(taps[q], parts);
    to[q] = parts[0];
    if constexpr (kParts > 1 && kRows > 1) to[kVecs + q] = parts[1];
  }
}

inline const uint8_t* codes_of(const TapRow& row) {
  return reinterpret_cast<const uint8_t*>(row.x);
}

template <int kVecs, int kHalves>
inline const uint8_t* code_at(const Block<kVecs, kHalves>& b, const TapRow& row, int64_t ix) {
  if (ix < 0 || ix >= b.t.shape->w) return b.zeros;
  return codes_of(row) + b.c0 + ix * row.step;
}

// kRows rows of a window, of `count` columns from `ix` on, which may lie in the padding.
template <int kVecs, int kHalves, int kRows>
inline void fill_columns(const Block<kVecs, kHalves>& b, const TapRow* rows, int64_t ix,
                         int64_t count, I32 flip, I32* to) {
  const int lanes = b.lanes;
  const int64_t w = b.t.shape->w, half = b.t.shape->stride_w, column = b.plan.entries * kVecs;
  // Columns without padding are `step` bytes apart.
  const int64_t inside_end = min64(count, w - ix - (kHalves - 1) * half);
  const int64_t end = ix + count;
  while (ix < end) {
    Ends p = {};
    for (int r = 0; r < kRows; ++r) {
      p.of[r] = code_at(b, rows[r], ix);
      if (kHalves == 2) p.next[r] = code_at(b, rows[r], ix + half);
    }
    const int64_t done = ix - (end - count);
    const int64_t run = ix < 0 || done >= inside_end ? 1 : inside_end - done;
    int64_t steps[kRows];
    for (int r = 0; r < kRows; ++r) steps[r] = rows[r].step;
    for (int64_t j = 0; j < run; ++j, to += column) {
      taps_of<kVecs, kHalves, kRows, false>(p, lanes, flip, to);
      PYOPS_UNROLL
      for (int r = 0; r < kRows; ++r) {
        p.of[r] += steps[r];
        if (kHalves == 2) p.next[r] += steps[r];
      }
    }
    ix += run;
  }
}

// ... of all columns of a strip.
template <int kVecs, int kHalves, int kRows>
void fill_rows(const Block<kVecs, kHalves>& b, const TapRow* rows, int64_t first, int64_t count,
               I32* to) {
  const ConvShape& s = *b.t.shape;
  const I32 flip = set1_i32(b.t.x_signed ? static_cast<int32_t>(0x80808080u) : 0);
  if (!b.plan.gathered) return fill_columns<kVecs, kHalves, kRows>(b, rows, first, count, flip, to);
  const int64_t column = b.plan.entries * kVecs;
  for (int64_t j = 0; j < count; j += s.kw, first += s.stride_w * kHalves) {
    for (int64_t kx = 0; kx < s.kw; ++kx, to += column) {
      fill_columns<kVecs, kHalves, kRows>(b, rows, first + kx * s.dilation_w, 1, flip, to);
    }
  }
}

// Groups of 4 rows, and the rest.
template <int kVecs, int kHalves>
inline void fill(const Block<kVecs, kHalves>& b, const TapRow* rows, int64_t first, int64_t count) {
  I32* to = b.columns;
  int64_t left = b.t.shape->kh;
  for (; left >= 4; left -= 4, rows += 4, to += kParts * kVecs) {
    fill_rows<kVecs, kHalves, 4>(b, rows, first, count, to);
  }
  if (left == 3) fill_rows<kVecs, kHalves, 3>(b, rows, first, count, to);
  if (left == 2) fill_rows<kVecs, kHalves, 2>(b, rows, first, count, to);
  if (left == 1) fill_rows<kVecs, kHalves, 1>(b, rows, first, count, to);
}

template <int kVecs, int kHalves>
inline void fill_weights(const Block<kVecs, kHalves>& b) {
  const ConvShape& s = *b.t.shape;
  const int64_t ld = round_up(s.c, kChannelStep);
  const I32 flip = set1_i32(0);
  I32* to = b.weights;
  for (int64_t kx = 0; kx < s.kw; ++kx) {
    for (int64_t ky = 0; ky < s.kh; ky += 4) {
      Ends p = {};
      const int64_t count = min64(4, s.kh - ky);
      for (int64_t r = 0; r < count; ++r) {
        p.of[r] = reinterpret_cast<const uint8_t*>(b.t.w) + ((ky + r) * s.kw + kx) * ld + b.c0;
        p.next[r] = p.of[r];
      }
      switch (count) {
        case 4: taps_of<kVecs, kHalves, 4, true>(p, b.lanes, flip, to); break;
        case 3: taps_of<kVecs, kHalves, 3, true>(p, b.lanes, flip, to); break;
        case 2: taps_of<kVecs, kHalves, 2, true>(p, b.lanes, flip, to); break;
        default: taps_of<kVecs, kHalves, 1, true>(p, b.lanes, flip, to); break;
      }
      to += (count > 1 ? kParts : 1) * kVecs;
    }
  }
}
