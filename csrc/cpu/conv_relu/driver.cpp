// The ops: packs, and a convolution of tensors in any order of memory.
#include <cstring>

#include "cpu/common/nhwc.h"
#include "cpu/conv_relu/call.h"
#include "cpu/sparse_gemm/pack_parallel.h"

namespace pyops::cpu {
namespace {

Tensor conv_relu_pack(const Tensor& weight, int64_t groups, int64_t algorithm) {
  const char* op = "conv_relu_pack";
  const Dtype type = checks::conv_dtype(op, "weight", weight.scalar_type());
  const Sizes shape = checks::conv_weight(op, weight, groups);
  checks::code(op, "algorithm", algorithm, 3);
  if (algorithm == kSparseAlgorithm) return new_sparse(op, weight, groups, false);
  const Tensor w = dense(weight);
  const ConvHeader h = conv_header_of(conv_kernel_for(type), type, shape[0], shape[1], shape[2],
                                      shape[3], groups, static_cast<ConvAlgorithm>(algorithm));
  checks::conv_algorithm(op, h);
  const int64_t bytes = conv_bytes(h);
  STD_TORCH_CHECK(bytes > 0, op, ": the weight is too large");
  const Tensor packed = new_packed(bytes);
  char* to = static_cast<char*>(packed.mutable_data_ptr());
  std::memcpy(to, &h, sizeof h);
  parallel_range(
      conv_parts(h), kSerialCodes / (h.panel_bytes() + 1),
      [&](int64_t begin, int64_t end) { pack_conv(to, w.const_data_ptr(), begin, end); });
  return packed;
}

Tensor conv_relu_unpack(const Tensor& packed, std::vector<int64_t> weight_shape,
                        int64_t weight_dtype) {
  const char* op = "conv_relu_unpack";
  checks::conv_weight_shape(op, weight_shape);
  checks::code(op, "weight_dtype", weight_dtype, 2);
  if (checks::is_sparse(packed)) {
    return new_unpacked(op, packed, weight_shape, static_cast<Dtype>(weight_dtype));
  }
  checks::packed_conv(op, packed, weight_shape, static_cast<Dtype>(weight_dtype));
  const Tensor w = new_tensor(weight_shape, kTypes[weight_dtype]);
  unpack_conv(packed.const_data_ptr(), w.mutable_data_ptr());
  return w;
}

Tensor conv_relu(const Tensor& x_in, const Tensor& packed, const std::vector<int64_t>& weight_shape,
                 const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                 const std::vector<int64_t>& dilation, const OptionalTensor& bias,
                 const OptionalTensor& residual_in, int64_t activation, double low, double high,
                 const OptionalTensor& slope) {
  const char* op = "conv_relu";
  STD_TORCH_CHECK(x_in.is_cpu(), op, ": x must be on the CPU");
  OptionalTensor residual;
  Value shortcut;
  if (residual_in.has_value()) {
    checks::cpu_tensor(op, "residual", *residual_in);
    shortcut = value_of(*residual_in);
  }
  const ConvReluCall call(
      op, value_of(x_in), residual_in.has_value() ? &shortcut : nullptr,
      {packed, weight_shape, stride, padding, dilation, bias, activation, low, high, slope});
  const Tensor x = arranged(x_in), out = new_arranged(call.out());
  if (residual_in.has_value()) residual = arranged(*residual_in);
  call.run(x.const_data_ptr(), residual.has_value() ? residual->const_data_ptr() : nullptr,
           out.mutable_data_ptr(), x.size(0));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("conv_relu_pack", TORCH_BOX(&conv_relu_pack));
  m.impl("conv_relu_unpack", TORCH_BOX(&conv_relu_unpack));
  m.impl("conv_relu", TORCH_BOX(&conv_relu));
}

}  // namespace pyops::cpu
