// The weight of a depthwise convolution as kernels read it, and a call of one, cut into parts.
//
//   int32  w_sum[c]           c padded with zeros to kChannelStep: the sum of a channel's taps
//   int8   w[ky][kx][c]       channels are lanes, taps run down
//
//        channel   0     1    ...  c-1 | 0 ...
//      ky 0 kx 0  w000  w100
//      ky 0 kx 1  w001  w101
//
// One layout for all kernels: each brings a block of channels into its own order, which costs about
// as much as one pixel of the output.
#pragma once
#include "cpu/int8_conv_relu/int8_conv_relu.h"

namespace pyops::cpu {

inline int64_t depthwise_bytes(int64_t c, int64_t taps) {
  return round_up(c, kChannelStep) * (4 + taps);
}

// weight: int8 [c][taps], taps = kh * kw.
void depthwise_pack(const int8_t* weight, int64_t c, int64_t taps, void* body);
void depthwise_unpack(const void* body, int64_t c, int64_t taps, int8_t* weight);

// parts() parts that may run on different threads, each with scratch_bytes() of its own, aligned to
// 64 bytes. The result does not depend on the number of parts.
//
//   const DepthwiseCall call(kernel, shape, x, x_signed, zero, body, epilogue, threads);
//   parallel_range(call.parts(), 1, ...  call.run(i, scratch + i * call.scratch_bytes()) ...
class DepthwiseCall {
 public:
  // x: NHWC codes, int8 if `x_signed`, else uint8, and `zero` their zero point; body: what
  // depthwise_pack wrote; epilogue: row m is pixel m of all images; its zero points and w_sum are
  // not looked at, for the sums are of x - zero; scale_a is one value; find_direct_codes was
  // called.
  DepthwiseCall(const Int8ConvReluKernel& kernel, const ConvShape& shape, const void* x,
                bool x_signed, int32_t zero, const void* body, const Epilogue& epilogue,
                int64_t threads);

  int64_t parts() const { return row_parts_ * channel_parts_; }
  int64_t scratch_bytes() const {
    const int64_t table = most_rows_ * shape_.kh * static_cast<int64_t>(sizeof(TapRow));
    return kernel_bytes_ + zeros_bytes_ + round_up(table, 64);
  }
  void run(int64_t part, void* scratch) const;

 private:
  const Int8ConvReluKernel& kernel_;
  ConvShape shape_;
  Epilogue epilogue_;
  DepthwiseTask task_;
  const char* x_;
  int64_t row_parts_, channel_parts_;
  int64_t kernel_bytes_, zeros_bytes_, most_rows_;  // parts of the scratch
};

}  // namespace pyops::cpu
