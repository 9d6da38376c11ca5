// One int8 convolution: what it is asked to do, checked, and then run on pointers.
#pragma once
#include "checks/int8_sparse_gemm.h"
#include "cpu/common/driver.h"

namespace pyops::cpu {

// The arguments of int8_conv_relu but its images (pyops/ops/int8_conv_relu.py).
struct Int8ConvArguments {
  const Tensor& packed;
  Ints weight_shape, stride, padding, dilation;
  double scale_x;
  int64_t zero_point_x;
  OptionalTensor scale_w, bias;
  double residual_scale;
  int64_t residual_zero_point;
  int64_t activation;
  double low, high;
  OptionalTensor slope;
  int64_t out_dtype;
  double out_scale;
  int64_t out_zero_point;
};

class Int8ConvCall {
 public:
  // Raises where an argument does not fit. residual: null where there is none. The packed weight is
  // not held: it has to live as long as the call.
  Int8ConvCall(const char* op, const Value& x, const Value* residual, const Int8ConvArguments& a);

  Value out() const;
  // The first `images` of the batch. They have the memory of [N, H, W, C]; x and out do not
  // overlap.
  void run(const void* x, const void* residual, void* out, int64_t images) const;

 private:
  // Of the packed weight: its shape.
  Int8ConvHeader take_weight(const char* op, const Tensor& packed);
  void run_depthwise(const ConvShape& shape, const void* x, const Epilogue& e) const;

  ConvShape shape_;
  const void* packed_;
  bool sparse_;
  OptionalTensor scale_w_, bias_, slope_;  // contiguous
  float scale_x_;
  int32_t zero_x_;
  bool is_signed_;
  Epilogue epilogue_;  // lacks what run() is given, and the pointers to scale_x_ and zero_x_
};

}  // namespace pyops::cpu
