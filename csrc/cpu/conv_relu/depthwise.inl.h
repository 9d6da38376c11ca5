// Depthwise convolutions, channels in lanes. Include after epilogue_float.inl.h and fused_*.inl.h.

// Pixels and vectors of channels whose sums are in registers together. 7 divides the rows of many
// images (7, 14, 28, 56, 112 pixels).
constexpr int kDepthwisePixels = 7, kDepthwiseVecs = kLanes == 16 ? 2 : 1;

// Between sums and output: a bias, a residual of the output's type, a clamp. Other epilogues take
// the way through memory, by `other`.
struct DepthwiseEnd {
  const float* bias;
  const void* residual;
  void* out;
  int64_t ld;
  float low, high;
  FinishFloatFn other;
};

// Some channels of a ConvDepthwise, c the first; the last vector has `lanes` of them.
struct DepthwiseBlock {
  const ConvDepthwise& t;
  DepthwiseEnd end;
  int64_t c;
  int lanes;
};

// Of each row of the output, groups of kDepthwisePixels pixels from `ox` on, the last of `count`.
struct DepthwiseColumns {
  int64_t ox, groups;
  int count;
};

inline DepthwiseEnd depthwise_end(const Epilogue& e, Dtype type) {
  const float inf = __builtin_inff();
  DepthwiseEnd end = {e.bias, e.residual, e.out, e.ld, -inf, inf, nullptr};
  if (e.activation == Activation::relu) end.low = 0.0f;
  if (e.activation == Activation::clamp) end.low = e.low, end.high = e.high;
  const bool clamps = e.activation <= Activation::relu || e.activation == Activation::clamp;
  const bool types = e.out_type == type && (!e.residual || e.residual_type == type);
  if (!clamps || !types || e.scale_w) end.other = finish_float_for(e);
  return end;
}

// What the sums of a group read, from the block's first channel on. x: of the group's first column.
struct DepthwiseTaps {
  const char* x;
  int64_t step;  // bytes from column to column
  int64_t column, width;
  const char* zeros;
  const float* w;
  int64_t line;  // elements of w from tap to tap
  int lanes;
};

// Column j of the group, or zeros where that is outside the image.
template <bool kEdge>
inline const char* column_at(const DepthwiseTaps& t, int64_t j, const char* x) {
  if (!kEdge) return x;
  return static_cast<uint64_t>(t.column + j) < static_cast<uint64_t>(t.width) ? x : t.zeros;
}

template <Dtype kType, int Vecs>
inline void load_column(const char* from, int lanes, F32 (&x)[Vecs]) {
  PYOPS_UNROLL
  for (int v = 0; v < Vecs; ++v) {
    x[v] = load_float(from, kType, v * kLanes, v + 1 < Vecs ? kLanes : lanes);
    __asm__("" : "+v"(x[v]));  // or gcc reads it again for each product
  }
}

// acc += a row of the window of kKw taps, without dilation: a column is read once for all pixels
// that it belongs to.
template <Dtype kType, int kKw, int kStride, int Vecs, bool kEdge>
inline void add_near_taps(const DepthwiseTaps& t, F32 (&acc)[kDepthwisePixels][Vecs]) {
  F32 taps[kKw][Vecs];
  PYOPS_UNROLL
  for (int k = 0; k < kKw; ++k) {
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) taps[k][v] = load(t.w + k * t.line + v * kLanes);
  }
  const char* at = t.x;
  PYOPS_UNROLL
  for (int j = 0; j < (kDepthwisePixels - 1) * kStride + kKw; ++j, at += t.step) {
    F32 x[Vecs];
    load_column<kType, Vecs>(column_at<kEdge>(t, j, at), t.lanes, x);
    PYOPS_UNROLL
    for (int k = 0; k < kKw; ++k) {
      if (j < k || (j - k) % kStride != 0 || (j - k) / kStride >= kDepthwisePixels) continue;
      PYOPS_UNROLL
      for (int v = 0; v < Vecs; ++v) {
        acc[(j - k) / kStride][v] = fma(x[v], taps[k][v], acc[(j - k) / kStride][v]);
      }
    }
  }
}

// acc += a row of any window.
template <Dtype kType, int Vecs, bool kEdge>
inline void add_taps(const DepthwiseTaps& t, const ConvShape& s,
                     F32 (&acc)[kDepthwisePixels][Vecs]) {
  for (int64_t k = 0; k < s.kw; ++k) {
    F32 taps[Vecs];
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) taps[v] = load(t.w + k * t.line + v * kLanes);
    int64_t j = k * s.dilation_w;
    const char* at = t.x + j * t.step;
    PYOPS_UNROLL
    for (int i = 0; i < kDepthwisePixels; ++i, j += s.stride_w, at += s.stride_w * t.step) {
      F32 x[Vecs];
      load_column<kType, Vecs>(column_at<kEdge>(t, j, at), t.lanes, x);
      PYOPS_UNROLL
      for (int v = 0; v < Vecs; ++v) acc[i][v] = fma(x[v], taps[v], acc[i][v]);
    }
  }
}

// Pixels m ... m + count - 1.
template <Dtype kType, int Vecs>
inline void finish_depthwise(const DepthwiseBlock& b, int lanes, int64_t m, int count,
                             F32 (&acc)[kDepthwisePixels][Vecs]) {
  const DepthwiseEnd& end = b.end;
  if (end.other) {
    alignas(64) float sums[kDepthwisePixels * Vecs * kLanes];
    PYOPS_UNROLL
    for (int i = 0; i < kDepthwisePixels; ++i) {
      PYOPS_UNROLL
      for (int v = 0; v < Vecs; ++v) store(sums + (i * Vecs + v) * kLanes, acc[i][v]);
    }
    const int cols = (Vecs - 1) * kLanes + lanes;
    return end.other(*b.t.epilogue, sums, Vecs * kLanes, m, count, b.c, cols);
  }
  PYOPS_UNROLL
  for (int v = 0; v < Vecs; ++v) {
    const int n = v + 1 < Vecs ? kLanes : lanes;
    const int64_t c = b.c + v * kLanes;
    // -0 is the neutral element of addition: -0 + -0 stays -0.
    const F32 bias = end.bias ? load(end.bias + c, n) : set1(-0.0f);
    PYOPS_UNROLL
    for (int i = 0; i < kDepthwisePixels; ++i) acc[i][v] = add(acc[i][v], bias);
    if (end.residual) {
      PYOPS_UNROLL
      for (int i = 0; i < kDepthwisePixels; ++i) {
        if (i >= count) break;
        acc[i][v] = add(acc[i][v], load_float(end.residual, kType, (m + i) * end.ld + c, n));
      }
    }
  }
  Epilogue e = {};
  e.out = end.out;
  const F32 low = set1(end.low), high = set1(end.high);
  PYOPS_UNROLL
  for (int i = 0; i < kDepthwisePixels; ++i) {
    if (i >= count) break;
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) {
      store_out<kType>(e, (m + i) * end.ld + b.c + v * kLanes, min(high, max(low, acc[i][v])),
                       v + 1 < Vecs ? kLanes : lanes);
    }
  }
}

// kEdge: columns may be outside the image, pixels and lanes missing. kKw 0: any window.
template <Dtype kType, int kKw, int kStride, int Vecs, bool kEdge>
__attribute__((noinline)) void depthwise_sums(const DepthwiseBlock& block,
                                              const DepthwiseColumns& columns) {
  const DepthwiseBlock b = block;
  const ConvShape s = *b.t.shape;
  const int64_t first = b.c * dtype_bytes(kType), line = round_up(s.c, kConvLanes);
  const int64_t row_count = b.t.row_end - b.t.row, kh = s.kh;
  const int lanes = kEdge ? b.lanes : kLanes;
  DepthwiseTaps t = {nullptr, 0, 0, s.w, b.t.zeros + first, nullptr, line, lanes};
  const TapRow* rows = b.t.rows;
  for (int64_t row = 0; row < row_count; ++row, rows += kh) {
    int64_t m = (b.t.row + row) * s.ow + columns.ox;
    t.column = columns.ox * s.stride_w - s.left;
    for (int64_t g = columns.groups; g > 0; --g) {
      F32 acc[kDepthwisePixels][Vecs];
      PYOPS_UNROLL
      for (int i = 0; i < kDepthwisePixels; ++i) {
        PYOPS_UNROLL
        for (int v = 0; v < Vecs; ++v) acc[i][v] = set1(0.0f);
      }
      t.w = b.t.w + b.c;
      for (int64_t ky = 0; ky < kh; ++ky, t.w += s.kw * line) {
        t.step = rows[ky].step;
        t.x = rows[ky].x + first + t.column * t.step;
        if constexpr (kKw > 0) {
          add_near_taps<kType, kKw, kStride, Vecs, kEdge>(t, acc);
        } else {
          add_taps<kType, Vecs, kEdge>(t, s, acc);
        }
      }
      const int count = kEdge && g == 1 ? columns.count : kDepthwisePixels;
      finish_depthwise<kType, Vecs>(b, lanes, m, count, acc);
      m += kDepthwisePixels, t.column += kDepthwisePixels * s.stride_w;
    }
  }
}

// Groups [first, last) of a row have all columns inside the image, and all pixels.
struct InnerGroups {
  int64_t first, last, all;
};

inline InnerGroups inner_groups(const ConvShape& s) {
  const int64_t step = kDepthwisePixels * s.stride_w;
  const int64_t reach = (kDepthwisePixels - 1) * s.stride_w + (s.kw - 1) * s.dilation_w;
  const int64_t all = (s.ow + kDepthwisePixels - 1) / kDepthwisePixels;
  const int64_t first = min64(all, (s.left + step - 1) / step);
  const int64_t room = s.w - 1 - reach + s.left;  // for the last one's first column
  const int64_t fit = room < 0 ? 0 : min64(room / step + 1, s.ow / kDepthwisePixels);
  return {first, max64(first, fit), all};
}

template <Dtype kType, int kKw, int kStride, int Vecs>
inline void depthwise_block(const DepthwiseBlock& b) {
  const ConvShape& s = *b.t.shape;
  const InnerGroups inner = inner_groups(s);
  const int64_t first = b.lanes < kLanes ? inner.all : inner.first;
  const int64_t last = max64(first, inner.last);
  const int rest = static_cast<int>(s.ow - (inner.all - 1) * kDepthwisePixels);
  if (first > 0) {
    const int count = first == inner.all ? rest : kDepthwisePixels;
    depthwise_sums<kType, kKw, kStride, Vecs, true>(b, {0, first, count});
  }
  if (last > first) {
    depthwise_sums<kType, kKw, kStride, Vecs, false>(
        b, {first * kDepthwisePixels, last - first, kDepthwisePixels});
  }
  if (inner.all > last) {
    depthwise_sums<kType, kKw, kStride, Vecs, true>(
        b, {last * kDepthwisePixels, inner.all - last, rest});
  }
}

// Channels are the outer loop: the rows that windows share come into the first-level cache once for
// each block of them.
template <Dtype kType, int kKw, int kStride>
inline void depthwise_of_window(const ConvDepthwise& t) {
  DepthwiseBlock b = {t, depthwise_end(*t.epilogue, kType), t.c, kLanes};
  for (; b.c + kDepthwiseVecs * kLanes <= t.c_end; b.c += kDepthwiseVecs * kLanes) {
    depthwise_block<kType, kKw, kStride, kDepthwiseVecs>(b);
  }
  for (; b.c < t.c_end; b.c += kLanes) {
    b.lanes = static_cast<int>(min64(kLanes, t.c_end - b.c));
    depthwise_block<kType, kKw, kStride, 1>(b);
  }
}

template <Dtype kType>
inline void depthwise_of_vectors(const ConvDepthwise& t) {
  const ConvShape& s = *t.shape;
  const bool near = s.kw == 3 && s.dilation_w == 1;
  if (near && s.stride_w == 1) return depthwise_of_window<kType, 3, 1>(t);
  if (near && s.stride_w == 2) return depthwise_of_window<kType, 3, 2>(t);
  depthwise_of_window<kType, 0, 0>(t);
}

inline void depthwise_of_vectors(const ConvDepthwise& t) {
  if (t.type == Dtype::bf16) return depthwise_of_vectors<Dtype::bf16>(t);
  depthwise_of_vectors<Dtype::f32>(t);
}
