// Sums of a depthwise convolution from columns and weights (columns.inl.h), and what becomes of
// them. Include after columns.inl.h.

template <int kVecs, int kHalves>
inline void fill_operands(const Block<kVecs, kHalves>& b) {
  const Epilogue& e = *b.t.epilogue;
  const int32_t zero = b.t.zero + (b.t.x_signed ? 128 : 0);
  reorder<kVecs, kHalves>(b.t.w_sum + b.c0, b.start, b.lanes);
  if (e.scale_w) reorder<kVecs, kHalves>(e.scale_w + b.c0, b.scale, b.lanes);
  if (e.bias) reorder<kVecs, kHalves>(e.bias + b.c0, b.bias, b.lanes);
  for (int q = 0; q < kVecs; ++q) {
    b.start[q] = sub(set1_i32(0), mul(set1_i32(zero), b.start[q]));
    if (!e.scale_w) b.scale[q] = as_i32(set1(1.0f));
    if (!e.bias) b.bias[q] = as_i32(set1(-0.0f));
  }
}

// acc = the sums of kCount pixels from column `at` on.
template <int kVecs, int kHalves, int kCount>
inline void multiply(const Block<kVecs, kHalves>& b, const I32* at, I32 (&acc)[kCount][kVecs]) {
  const int64_t step = b.plan.entries * kVecs, pixel = b.plan.pixel_step * step;
  // Weights, and columns next to one another, are one run.
  const int64_t next = (b.plan.tap_step - 1) * step, taps = b.t.shape->kw;
  const int64_t runs = next ? taps : 1, length = b.plan.entries * (next ? 1 : taps);
  PYOPS_UNROLL
  for (int i = 0; i < kCount; ++i) {
    PYOPS_UNROLL
    for (int q = 0; q < kVecs; ++q) acc[i][q] = b.start[q];
  }
  const I32* w = b.weights;
  for (int64_t run = 0; run < runs; ++run, at += next) {
    for (int64_t entry = 0; entry < length; ++entry, at += kVecs, w += kVecs) {
      PYOPS_UNROLL
      for (int q = 0; q < kVecs; ++q) {
        const I32 tap = w[q];
        PYOPS_UNROLL
        for (int i = 0; i < kCount; ++i) acc[i][q] = dot(acc[i][q], at[i * pixel + q], tap);
      }
    }
  }
}

// What the pixels of a block share, in registers that no store of codes can alias.
struct Shared {
  uint8_t* out;
  int64_t ld;
  float scale_a, inverse_scale;
  int32_t zero, low, high;
};

inline Shared shared_of(const Epilogue& e, int64_t c0) {
  return {static_cast<uint8_t*>(e.out) + c0,
          e.ld,
          e.scale_a ? *e.scale_a : 1.0f,
          e.out_inverse_scale,
          e.out_zero,
          e.low_code,
          e.high_code};
}

// m: the pixel of the output; both: of a pair, whether the second one is there. kUnit: both scales
// are 1, and no code comes near the limits of int32.
template <Dtype kOut, bool kUnit, int kVecs, int kHalves>
inline void finish_direct(const Block<kVecs, kHalves>& b, const Shared& d, const I32 (&acc)[kVecs],
                          int64_t m, bool both) {
  constexpr int kLowest = kOut == Dtype::u8 ? 0 : -128;
  uint8_t* out = d.out + m * d.ld;
  I32 codes[kVecs];
  PYOPS_UNROLL
  for (int q = 0; q < kVecs; ++q) {
    F32 v = to_f32(acc[q]);
    if (!kUnit) v = mul(v, set1(d.scale_a));
    v = add(mul(v, as_f32(b.scale[q])), as_f32(b.bias[q]));
    if (!kUnit) v = mul(v, set1(d.inverse_scale));
    if constexpr (kVecs > 1) {
      if (!kUnit) v = min(set1(static_cast<float>(kLowest + 255 - d.zero)), v);
    } else {  // bounded as floats: the generic to_i32 takes small ones alone
      const F32 low = set1(static_cast<float>(d.low - d.zero));
      v = min(set1(static_cast<float>(d.high - d.zero)), max(low, v));
    }
    codes[q] = to_i32(v);
  }
  if constexpr (kVecs > 1) {
    const I32 half = pack_half(codes, d.zero), high_half = pack_half(codes + 2, d.zero);
    const I32 all = pack_bytes<kOut == Dtype::u8>(half, high_half, d.low, d.high);
    if constexpr (kHalves == 1) {
      store_codes_wide(out, all);
    } else {
      store_half<0>(out, all);
      if (both) store_half<1>(out + d.ld, all);
    }
  } else {
    store_8(out, add(codes[0], set1_i32(d.zero)), b.lanes);
  }
}

// A pair is two rows of the tile, each of half a block.
template <int kVecs, int kHalves, int kCount>
inline void finish_tile_of(const Block<kVecs, kHalves>& b, FinishFn finish,
                           const I32 (&acc)[kCount][kVecs], int64_t m, int64_t left) {
  constexpr int kWidth = kVecs * kLanes;
  alignas(64) int32_t tile[kCount * kWidth];
  for (int i = 0; i < kCount; ++i) {
    if constexpr (kVecs == 1) {
      store(tile + i * kWidth, acc[i][0]);
    } else {
      alignas(64) int32_t mixed[kWidth];
      for (int q = 0; q < kVecs; ++q) store(mixed + q * kLanes, acc[i][q]);
      for (int l = 0; l < kLanes / 4; ++l) {
        for (int q = 0; q < 4; ++q) {
          __builtin_memcpy(tile + i * kWidth + (l * 4 + q) * 4, mixed + q * kLanes + l * 4, 16);
        }
      }
    }
  }
  const int rows = static_cast<int>(min64(left, kCount * kHalves)), width = kWidth / kHalves;
  finish(*b.t.epilogue, tile, width, m, rows, b.c0, kVecs == 1 ? b.lanes : width);
}

// left: pixels of the output's row from m on.
template <int kVecs, int kHalves, int kCount>
inline void pixels(const Block<kVecs, kHalves>& b, FinishFn finish, const I32* at, int64_t m,
                   int64_t left) {
  I32 acc[kCount][kVecs];
  multiply<kVecs, kHalves, kCount>(b, at, acc);
  if (b.t.epilogue->direct == DirectCodes::none) {
    return finish_tile_of<kVecs, kHalves, kCount>(b, finish, acc, m, left);
  }
  const bool u8 = b.t.epilogue->out_type == Dtype::u8;
  const bool unit = b.t.epilogue->direct == DirectCodes::unit;
  const Shared d = shared_of(*b.t.epilogue, b.c0);
  PYOPS_UNROLL
  for (int i = 0; i < kCount; ++i, m += kHalves, left -= kHalves) {
    if (u8 && unit) {
      finish_direct<Dtype::u8, true, kVecs, kHalves>(b, d, acc[i], m, left > 1);
    } else if (u8) {
      finish_direct<Dtype::u8, false, kVecs, kHalves>(b, d, acc[i], m, left > 1);
    } else {
      finish_direct<Dtype::s8, false, kVecs, kHalves>(b, d, acc[i], m, left > 1);
    }
  }
}

#include "cpu/int8_conv_relu/slide.inl.h"

template <int kVecs, int kHalves>
void block_of_rows(const DepthwiseTask& t, int64_t c0, int lanes) {
  const ConvShape& s = *t.shape;
  Block<kVecs, kHalves> b = {t, plan_of(s, kVecs, kHalves), c0, lanes, {}, {}, {}, {}, {}, {}};
  b.zeros = reinterpret_cast<const uint8_t*>(t.zeros) + c0;
  b.start = static_cast<I32*>(t.scratch);
  b.scale = b.start + kVecs;
  b.bias = b.scale + kVecs;
  b.weights = b.bias + kVecs;
  b.columns = b.weights + s.kw * b.plan.entries * kVecs;
  fill_weights(b);
  fill_operands(b);
  if constexpr (kVecs > 1 && kSlides) {
    if (slides(t)) return slide_rows(b);
  }
  const FinishFn finish = finish_for(*t.epilogue);
  const Plan& p = b.plan;
  const int64_t step = p.pixel_step * p.entries * kVecs;
  for (int64_t row = t.row; row < t.row_end; ++row) {
    for (int64_t first = 0; first < p.pixels; first += p.strip) {
      const int64_t count = min64(p.strip, p.pixels - first);
      fill(b, t.rows + (row - t.row) * s.kh, first * kHalves * s.stride_w - s.left,
           (count - 1) * p.pixel_step + p.tail);
      int64_t i = 0;
      for (; i < count;) {
        const int64_t ox = (first + i) * kHalves, m = row * s.ow + ox;
        const I32* at = b.columns + i * step;
        if (i + kPixels <= count) {
          pixels<kVecs, kHalves, kPixels>(b, finish, at, m, s.ow - ox);
          i += kPixels;
        } else {
          pixels<kVecs, kHalves, 1>(b, finish, at, m, s.ow - ox);
          ++i;
        }
      }
    }
  }
}

// Channels [c, t.c_end) in whole and half blocks, as far as that is faster than single vectors; the
// last one may overlap the one before it. Returns the channel that it came to.
template <int kVecs>
inline int64_t wide_blocks(const DepthwiseTask& t) {
  constexpr int kWidth = kVecs * kLanes, kHalf = kWidth / 2;
  const int64_t least = kSlides && slides(t) ? 0 : kHalf / 2;
  int64_t c = t.c;
  for (; c + kWidth <= t.c_end; c += kWidth) block_of_rows<kVecs, 1>(t, c, kLanes);
  if (t.c_end - c > kHalf && t.c_end - t.c >= kWidth) {
    block_of_rows<kVecs, 1>(t, t.c_end - kWidth, kLanes);
    return t.c_end;
  }
  if (c + kHalf <= t.c_end) {
    block_of_rows<kVecs, 2>(t, c, kLanes);
    c += kHalf;
  }
  if (t.c_end - c > least && t.c_end - t.c >= kHalf) {
    block_of_rows<kVecs, 2>(t, t.c_end - kHalf, kLanes);
    return t.c_end;
  }
  return c;
}

template <int kVecs = kWideVecs>
inline void depthwise_impl(const DepthwiseTask& t) {
  int64_t c = t.c;
  if constexpr (kVecs > 1) c = wide_blocks<kVecs>(t);
  for (; c < t.c_end; c += kLanes) {
    block_of_rows<1, 1>(t, c, static_cast<int>(min64(kLanes, t.c_end - c)));
  }
}
