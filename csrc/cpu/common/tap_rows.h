// The rows of an image that the windows of a depthwise convolution read.
#pragma once
#include "cpu/common/conv_shape.h"

namespace pyops::cpu {

// A row of a window: columns are `step` bytes apart from `x` on, all the same one where it is 0.
struct TapRow {
  const char* x;
  int64_t step;
};

// Of rows [first, last) of the output, image * oh + oy, the rows of their windows: [last - first]
// [kh]. Pixels of x take `pixel` bytes, as do the zeros that rows outside the image point to.
inline void fill_tap_rows(const ConvShape& s, const char* x, int64_t pixel, const char* zeros,
                          int64_t first, int64_t last, TapRow* rows) {
  for (int64_t row = first; row < last; ++row) {
    const int64_t image = row / s.oh, top = row % s.oh * s.stride_h - s.top;
    for (int64_t ky = 0; ky < s.kh; ++ky, ++rows) {
      const int64_t y = top + ky * s.dilation_h;
      *rows = {zeros, 0};
      if (y >= 0 && y < s.h) *rows = {x + (image * s.h + y) * s.w * pixel, pixel};
    }
  }
}

}  // namespace pyops::cpu
