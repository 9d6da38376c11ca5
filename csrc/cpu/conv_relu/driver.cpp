// The float convolution: check, choose a kernel, split tiles of pixels and panels over threads.
#include <cstring>

#include "checks/conv_relu.h"
#include "cpu/common/buffer.h"
#include "cpu/common/driver.h"
#include "cpu/conv_relu/run.h"

namespace pyops::cpu {
namespace {

using torch::headeronly::MemoryFormat;

// Rows with bf16 products take bfloat16 tensors alone.
const ConvKernel& kernel_for(Dtype type) {
  const auto& active = best<ConvKernel>(conv_relu_kernels);
  if (active.products == ConvProducts::f32 || type == Dtype::bf16) return active;
  const ConvKernel* row = &active;  // its level includes those of the rows that follow
  while (row->test_only || row->products != ConvProducts::f32) ++row;
  return *row;
}

Tensor conv_relu_pack(const Tensor& weight, int64_t groups) {
  const char* op = "conv_relu_pack";
  const Dtype type = checks::conv_dtype(op, "weight", weight);
  STD_TORCH_CHECK(weight.dim() == 4, op, ": weight must be 4-D [OC, C / groups, KH, KW], but is ",
                  weight.dim(), "-D");
  const std::vector<int64_t> shape(weight.sizes().begin(), weight.sizes().end());
  checks::conv_weight_shape(op, shape);
  checks::conv_groups(op, shape[0], groups);
  const Tensor w = dense(weight);
  const ConvHeader h =
      conv_header_of(kernel_for(type), type, shape[0], shape[1], shape[2], shape[3], groups);
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
  checks::packed_conv(op, packed, weight_shape, static_cast<Dtype>(weight_dtype));
  const Tensor w = new_tensor(weight_shape, kTypes[weight_dtype]);
  unpack_conv(packed.const_data_ptr(), w.mutable_data_ptr());
  return w;
}

// Strides of NHWC memory; those of dimensions of size 1 say nothing.
Tensor channels_last(const Tensor& t) {
  const int64_t c = t.size(1), h = t.size(2), w = t.size(3);
  const int64_t want[4] = {h * w * c, 1, w * c, c};
  bool same = true;
  for (int i = 0; i < 4; ++i) same = same && (t.size(i) == 1 || t.stride(i) == want[i]);
  return same ? t : torch::stable::contiguous(t, MemoryFormat::ChannelsLast);
}

Tensor conv_relu(const Tensor& x_in, const Tensor& packed, std::vector<int64_t> weight_shape,
                 std::vector<int64_t> stride, std::vector<int64_t> padding,
                 std::vector<int64_t> dilation, const OptionalTensor& bias,
                 const OptionalTensor& residual_in, int64_t activation, double low, double high,
                 const OptionalTensor& slope_in) {
  const char* op = "conv_relu";
  const Dtype type = checks::conv_dtype(op, "x", x_in);
  const ConvShape s = checks::conv_shape(op, x_in, weight_shape, stride, padding, dilation);
  const ConvHeader& h = checks::packed_conv(op, packed, weight_shape, type);
  STD_TORCH_CHECK(h.groups == s.groups, op, ": the weight is packed for ", h.groups,
                  " groups, but x has ", s.c, " channels, which makes ", s.groups);
  checks::channels(op, "bias", bias, s.oc);
  checks::conv_residual(op, residual_in, x_in, s);
  checks::code(op, "activation", activation, kConvActivations);
  checks::conv_slope(op, slope_in, activation, s.oc);
  const ConvKernel& kernel = kernel_for(type);
  STD_TORCH_CHECK(h.nr == kernel.nr && (h.depthwise() || h.kr == kernel.kr), op,
                  ": the weight is packed as n", h.nr, "k", h.kr, ", but kernel ", kernel.name,
                  " takes n", kernel.nr, "k", kernel.kr, "; pack it again");
  const Tensor out = new_tensor({s.n, s.oc, s.oh, s.ow}, {s.oh * s.ow * s.oc, 1, s.ow * s.oc, s.oc},
                                x_in.scalar_type());
  if (s.pixels() == 0) return out;
  const Tensor x = channels_last(x_in);
  Operands operands = {OptionalTensor(), dense(bias), OptionalTensor()};
  if (residual_in.has_value()) operands.residual = channels_last(*residual_in);
  const OptionalTensor slope = dense(slope_in);
  Epilogue e = epilogue_of(operands, activation, static_cast<int64_t>(type), out);
  e.ld = s.oc;
  e.low = static_cast<float>(low), e.high = static_cast<float>(high);
  e.slope = pointer<float>(slope);
  e.slope_stride = slope.has_value() && slope->size(0) > 1 ? 1 : 0;
  run_conv({kernel, packed.const_data_ptr(), s, type, x.const_data_ptr(), e});
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("conv_relu_pack", TORCH_BOX(&conv_relu_pack));
  m.impl("conv_relu_unpack", TORCH_BOX(&conv_relu_unpack));
  m.impl("conv_relu", TORCH_BOX(&conv_relu));
}

}  // namespace pyops::cpu
