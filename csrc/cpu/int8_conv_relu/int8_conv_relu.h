// The int8 convolution with as many groups as channels, as every kernel file implements it.
//
//   acc[m][c] = sum_{ky, kx} (x[iy][ix][c] - zero) * w[c][ky][kx]      int32, exact
//
// over NHWC images (common/conv_shape.h: m counts pixels of the output, ky and kx lead to iy and
// ix); positions outside the image contribute 0. Then the epilogue of common/epilogue.h from
// `v = float(acc)` on, n being the channel.
#pragma once
#include "cpu/common/conv_shape.h"
#include "cpu/common/epilogue.h"
#include "cpu/common/tap_rows.h"
#include "cpu/isa.h"

namespace pyops::cpu {

// Channels of a packed weight are padded to a multiple of it (depthwise.h).
constexpr int64_t kChannelStep = 64;

// Some rows of the output by some channels.
struct DepthwiseTask {
  const ConvShape* shape;  // c == oc == groups
  const TapRow* rows;      // [row_end - row][kh]
  const char* zeros;       // [c padded + kChannelStep], all `zero`
  bool x_signed;
  int32_t zero;              // of x, in its own type
  const int32_t* w_sum;      // [c padded]
  const int8_t* w;           // [kh * kw][c padded]
  int64_t row, row_end;      // rows of the output: image * oh + oy
  int64_t c, c_end;          // channels
  const Epilogue* epilogue;  // its row 0 is the first pixel of the output; has no zero points
  void* scratch;             // 64-byte aligned
};

struct Int8ConvReluKernel : KernelRow {
  int64_t (*depthwise_scratch)(const ConvShape&);  // bytes
  void (*depthwise)(const DepthwiseTask&);
};

extern KernelTable int8_conv_relu_kernels;

#define PYOPS_INT8_CONV_RELU_KERNEL(name, isa, test_only) \
  namespace name {                                        \
  int64_t int8_depthwise_scratch(const ConvShape& shape); \
  void int8_depthwise(const DepthwiseTask& task);         \
  }
#include "cpu/int8_conv_relu/kernels.inc"
#undef PYOPS_INT8_CONV_RELU_KERNEL

}  // namespace pyops::cpu
