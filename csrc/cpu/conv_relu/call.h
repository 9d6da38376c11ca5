// One float convolution: what it is asked to do, checked, and then run on pointers.
#pragma once
#include "checks/sparse_gemm.h"
#include "cpu/common/driver.h"

namespace pyops::cpu {

// The arguments of conv_relu but its images (pyops/ops/conv_relu.py).
struct ConvArguments {
  const Tensor& packed;
  Ints weight_shape, stride, padding, dilation;
  OptionalTensor bias;
  int64_t activation;
  double low, high;
  OptionalTensor slope;
};

class ConvReluCall {
 public:
  // Raises where an argument does not fit. residual: null where there is none. The packed weight is
  // not held: it has to live as long as the call.
  ConvReluCall(const char* op, const Value& x, const Value* residual, const ConvArguments& a);

  Value out() const;
  // The first `images` of the batch. They have the memory of [N, H, W, C]; x and out do not
  // overlap.
  void run(const void* x, const void* residual, void* out, int64_t images) const;

 private:
  // Of the packed weight: its header, and the kernel that takes it.
  void take_weight(const char* op, const ConvArguments& a);

  ConvShape shape_;
  Dtype type_;
  const void* packed_;
  // One of them; of a sparse weight that the tiles of conv_relu take (blocks.h) the first.
  const ConvKernel* kernel_ = nullptr;
  const SparseGemmKernel* sparse_ = nullptr;
  OptionalTensor bias_, slope_;  // contiguous
  Epilogue epilogue_;            // lacks what run() is given
};

// The kernel that is allowed now: rows with bf16 products take bf16 images alone.
const ConvKernel& conv_kernel_for(Dtype type);

}  // namespace pyops::cpu
