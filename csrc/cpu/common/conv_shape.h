// The geometry of a 2-D convolution or pooling over NHWC images.
//
//   out[n][oy][ox] takes  in[n][oy * stride_h - top + ky * dilation_h]
//                              [ox * stride_w - left + kx * dilation_w]   for ky < kh, kx < kw
#pragma once
#include "cpu/common/types.h"

namespace pyops::cpu {

struct ConvShape {
  int64_t n, h, w, c;  // of the input
  int64_t kh, kw;
  int64_t stride_h, stride_w;
  int64_t top, bottom, left, right;  // padding
  int64_t dilation_h, dilation_w;
  int64_t oh, ow, oc;  // of the output
  int64_t groups;

  int64_t pixels() const { return n * oh * ow; }  // of the output
};

// Positions of a window along one axis, 0 where it does not fit once.
constexpr int64_t conv_positions(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                                 int64_t dilation) {
  const int64_t last = size + padding - (dilation * (kernel - 1) + 1);
  return last < 0 ? 0 : last / stride + 1;
}

}  // namespace pyops::cpu
