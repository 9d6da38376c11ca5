// The int8 convolution ops: bring tensors into NHWC order, hand over to call.cpp.
#include <vector>

#include "cpu/common/nhwc.h"
#include "cpu/int8_conv_relu/call.h"
#include "cpu/int8_conv_relu/depthwise.h"

namespace pyops::cpu {
namespace {

Tensor int8_conv_pack(const Tensor& weight, int64_t groups) {
  const char* op = "int8_conv_pack";
  checks::cpu_tensor(op, "weight", weight, ScalarType::Char, "torch.int8");
  STD_TORCH_CHECK(weight.dim() == 4, op, ": weight must be 4-D [OC, C / groups, KH, KW], but is ",
                  weight.dim(), "-D");
  STD_TORCH_CHECK(groups >= 1 && groups <= max64(1, weight.size(0)) && weight.size(0) % groups == 0,
                  op, ": groups is ", groups, ", which does not divide ", weight.size(0),
                  " output channels");
  Int8ConvHeader shape = {};
  shape.oc = weight.size(0);
  shape.c = weight.size(1);
  shape.kh = weight.size(2);
  shape.kw = weight.size(3);
  shape.groups = groups;
  STD_TORCH_CHECK(shape.kh > 0 && shape.kw > 0, op, ": the window is empty");
  STD_TORCH_CHECK(shape.depth() <= kMaxK, op, ": KH * KW * C / groups is ", shape.depth(),
                  ", but at most 65536 is exact in int32");
  const Tensor w = dense(weight);
  return pack_int8_conv(static_cast<const int8_t*>(w.const_data_ptr()), shape);
}

Tensor int8_conv_unpack(const Tensor& packed, const std::vector<int64_t>& shape) {
  const char* op = "int8_conv_unpack";
  const Int8ConvHeader& h = checks::packed_int8_conv(op, packed);
  const bool same = shape == std::vector<int64_t>{h.oc, h.c, h.kh, h.kw};
  STD_TORCH_CHECK(same, op, ": the packed weight is [", h.oc, ", ", h.c, ", ", h.kh, ", ", h.kw,
                  "], but another shape given");
  const Tensor w = new_tensor({h.oc, h.c, h.kh, h.kw}, ScalarType::Char);
  unpack_int8_conv(packed.const_data_ptr(), static_cast<int8_t*>(w.mutable_data_ptr()));
  return w;
}

Tensor int8_conv_relu(const Tensor& input, const Tensor& packed,
                      const std::vector<int64_t>& weight_shape, const std::vector<int64_t>& stride,
                      const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
                      double scale_x, int64_t zero_point_x, const OptionalTensor& scale_w,
                      const OptionalTensor& bias, const OptionalTensor& residual,
                      double residual_scale, int64_t residual_zero_point, int64_t activation,
                      double low, double high, const OptionalTensor& slope, int64_t out_dtype,
                      double out_scale, int64_t out_zero_point) {
  const char* op = "int8_conv_relu";
  if (residual.has_value()) checks::cpu_tensor(op, "residual", *residual);
  Value shortcut;
  if (residual.has_value()) shortcut = value_of(*residual);
  const Int8ConvArguments arguments = {packed,
                                       weight_shape,
                                       stride,
                                       padding,
                                       dilation,
                                       scale_x,
                                       zero_point_x,
                                       scale_w,
                                       bias,
                                       residual_scale,
                                       residual_zero_point,
                                       activation,
                                       low,
                                       high,
                                       slope,
                                       out_dtype,
                                       out_scale,
                                       out_zero_point};
  const Int8ConvCall call(op, value_of(input), residual.has_value() ? &shortcut : nullptr,
                          arguments);
  const Tensor x = arranged(input);
  const OptionalTensor r = residual.has_value() ? arranged(*residual) : residual;
  const Tensor out = new_arranged(call.out());
  call.run(x.const_data_ptr(), pointer<void>(r), out.mutable_data_ptr(), x.size(0));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("int8_conv_pack", TORCH_BOX(&int8_conv_pack));
  m.impl("int8_conv_unpack", TORCH_BOX(&int8_conv_unpack));
  m.impl("int8_conv_relu", TORCH_BOX(&int8_conv_relu));
}

}  // namespace pyops::cpu
