// The windows of a pool along one axis, as torch's max_pool2d, avg_pool2d and adaptive pools have
// them.
#pragma once
#include <vector>

#include "cpu/common/conv_shape.h"
#include "cpu/int8_pool/int8_pool.h"

namespace pyops::cpu {

struct Axis {
  std::vector<PoolTaps> taps;     // of each position of the output
  std::vector<int64_t> divisors;  // a window's, this axis' factor
  int64_t step;                   // from one tap to the next
};

struct AxisWindow {
  int64_t size, kernel, stride, before, after, dilation;
  bool ceil_mode;
};

// With ceil_mode also a window that begins inside image and leading padding, but ends behind.
inline int64_t window_count(const AxisWindow& a) {
  const int64_t padded = a.size + a.before + a.after;
  const int64_t count = conv_positions(a.size, a.kernel, a.stride, a.before + a.after, a.dilation);
  const bool fits = (padded - a.dilation * (a.kernel - 1) - 1) % a.stride == 0;
  if (!a.ceil_mode || count == 0 || fits) return count;
  return count * a.stride >= a.size + a.before ? count : count + 1;
}

// Of the positions begin, begin + step, ..., `count` of them, those in [0, size).
inline PoolTaps inside(int64_t begin, int64_t count, int64_t step, int64_t size) {
  const int64_t first = begin < 0 ? (-begin + step - 1) / step : 0;
  const int64_t end = begin >= size ? 0 : min64(count, (size - begin + step - 1) / step);
  return {begin + first * step, max64(0, end - first)};
}

inline Axis axis_of(const AxisWindow& a, bool count_padding) {
  Axis axis = {{}, {}, a.dilation};
  for (int64_t o = 0, count = window_count(a); o < count; ++o) {
    const int64_t begin = o * a.stride - a.before;
    axis.taps.push_back(inside(begin, a.kernel, a.dilation, a.size));
    const PoolTaps padded =
        inside(begin + a.before, a.kernel, a.dilation, a.size + a.before + a.after);
    axis.divisors.push_back(count_padding ? padded.count : axis.taps.back().count);
  }
  return axis;
}

// Positions floor(o size / count) to ceil((o + 1) size / count).
inline Axis adaptive_axis(int64_t size, int64_t count) {
  Axis axis = {{}, {}, 1};
  for (int64_t o = 0; o < count; ++o) {
    const int64_t begin = o * size / count, end = ((o + 1) * size + count - 1) / count;
    axis.taps.push_back({begin, end - begin});
    axis.divisors.push_back(end - begin);
  }
  return axis;
}

}  // namespace pyops::cpu
