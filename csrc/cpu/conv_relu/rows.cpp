#include "cpu/conv_relu/rows.h"

namespace pyops::cpu {
namespace {

// Where the window of an output pixel begins, maybe outside the image.
struct Window {
  int64_t at;  // bytes from x
  int64_t y, x;
};

// Of one axis: whether a position is in the image.
bool inside(int64_t at, int64_t size) { return at >= 0 && at < size; }

// Fills windows; whether all taps of all of them are inside the image.
bool find_windows(const ConvInput& input, int64_t first, int pixels, Window* windows) {
  const ConvShape& s = input.shape;
  const int64_t reach_y = (s.kh - 1) * s.dilation_h, reach_x = (s.kw - 1) * s.dilation_w;
  const int64_t row = first / s.ow, pixel = s.c * input.element;
  int64_t ox = first - row * s.ow, image = row / s.oh, oy = row - image * s.oh;
  bool all = true;
  for (int r = 0; r < pixels;) {  // a row of output pixels at a time
    const int64_t y = oy * s.stride_h - s.top, count = min64(pixels - r, s.ow - ox);
    int64_t x = ox * s.stride_w - s.left, at = ((image * s.h + y) * s.w + x) * pixel;
    const int64_t last = x + (count - 1) * s.stride_w;
    all = all && y >= 0 && x >= 0 && y + reach_y < s.h && last + reach_x < s.w;
    for (const int64_t end = r + count; r < end; ++r) {
      windows[r] = {at, y, x};
      x += s.stride_w, at += s.stride_w * pixel;
    }
    ox = 0;
    if (++oy == s.oh) oy = 0, ++image;
  }
  return all;
}

// ConvTile's step, where the last segment ends `reach` bytes behind its window's beginning.
int64_t step_of(const ConvInput& input, const Window* windows, int pixels, int64_t reach) {
  const int64_t first = windows[0].at;
  const int64_t step = pixels > 1 ? windows[1].at - first : input.shape.c * input.element;
  for (int r = 2; r < pixels; ++r) {
    if (windows[r].at - first != r * step) return 0;
  }
  const int64_t last = first + (round_up(pixels, kConvStrip) - 1) * step;
  return last + reach <= input.end - input.x ? step : 0;
}

// All taps inside: one offset for all pixels.
ConvRows interior_rows(const ConvInput& input, const Window* windows, int pixels,
                       const void** rows) {
  const ConvShape& s = input.shape;
  const int64_t pixel = s.c * input.element;
  const int64_t across = input.lines ? 1 : s.kw;
  const int64_t reach = ((s.kh - 1) * s.dilation_h * s.w + (s.kw - 1) * s.dilation_w + 1) * pixel;
  const int64_t step = step_of(input, windows, pixels, reach);
  const int filled = input.first && step != 0 ? 1 : pixels;
  for (int64_t ky = 0; ky < s.kh; ++ky) {
    for (int64_t kx = 0; kx < across; ++kx, rows += pixels) {
      const char* from = input.x + (ky * s.dilation_h * s.w + kx * s.dilation_w) * pixel;
      for (int r = 0; r < filled; ++r) rows[r] = from + windows[r].at;
    }
  }
  return {s.kh * across, (input.lines ? s.kw : 1) * (s.c / s.groups), step};
}

// Whether every window is the pixel of its place.
bool is_product(const ConvShape& s) {
  return s.kh * s.kw * s.stride_h * s.stride_w == 1 && s.oh == s.h && s.ow == s.w;
}

ConvRows product_rows(const ConvInput& input, int64_t first, int pixels, const void** rows) {
  const ConvShape& s = input.shape;
  const int64_t pixel = s.c * input.element;
  const char* from = input.x + first * pixel;
  const int64_t readable = (input.end - from) / (pixel + !pixel);
  const int64_t step = round_up(pixels, kConvStrip) <= readable ? pixel : 0;
  const int filled = input.first && step != 0 ? 1 : pixels;
  for (int r = 0; r < filled; ++r) rows[r] = from + r * pixel;
  return {1, s.c / s.groups, step};
}

}  // namespace

ConvRows fill_rows(const ConvInput& input, int64_t first, int pixels, const void** rows) {
  if (is_product(input.shape)) return product_rows(input, first, pixels, rows);
  Window windows[kConvPixels];
  if (find_windows(input, first, pixels, windows)) {
    return interior_rows(input, windows, pixels, rows);
  }
  const ConvShape& s = input.shape;
  const int64_t pixel = s.c * input.element, line = s.w * pixel, taps = s.kh * s.kw;
  for (int r = 0; r < pixels; ++r) {
    const void** to = rows + r;
    for (int64_t ky = 0; ky < s.kh; ++ky) {
      const bool y_inside = inside(windows[r].y + ky * s.dilation_h, s.h);
      const int64_t from = windows[r].at + ky * s.dilation_h * line;
      for (int64_t kx = 0; kx < s.kw; ++kx, to += pixels) {
        const bool in = y_inside && inside(windows[r].x + kx * s.dilation_w, s.w);
        *to = in ? input.x + (from + kx * s.dilation_w * pixel) : input.zeros;
      }
    }
  }
  return {taps, s.c / s.groups, 0};
}

}  // namespace pyops::cpu
