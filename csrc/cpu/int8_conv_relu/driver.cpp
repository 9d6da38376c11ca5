// The int8 convolution ops: check, bring tensors into NHWC order, hand over to dense.cpp or
// depthwise.cpp.
#include <cstring>
#include <vector>

#include "checks/int8_conv_relu.h"
#include "cpu/common/buffer.h"
#include "cpu/common/driver.h"
#include "cpu/common/nhwc.h"
#include "cpu/int8_conv_relu/dense.h"
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

Dtype residual_type(const char* op, const Tensor& t) {
  if (!checks::is_codes(t)) return checks::float_dtype(op, "residual", t);
  return checks::type_of_codes(t);
}

void depthwise_conv(const ConvShape& s, const uint8_t* x, bool is_signed, int32_t zero,
                    const void* body, const Epilogue& e) {
  const auto& kernel = best<Int8ConvReluKernel>(int8_conv_relu_kernels);
  const int64_t threads = num_threads();
  const DepthwiseCall call(kernel, s, x, is_signed, zero, body, e, threads);
  static thread_local Buffer buffer;
  char* scratch = static_cast<char*>(buffer.get(call.parts() * call.scratch_bytes()));
  parallel_range(call.parts(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) call.run(i, scratch + i * call.scratch_bytes());
  });
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
  STD_TORCH_CHECK(checks::is_codes(input), op, ": x must be torch.int8 or torch.uint8");
  const Int8ConvHeader& header = checks::packed_int8_conv(op, packed);
  STD_TORCH_CHECK(header.layout != Int8ConvLayout::plain, op,
                  ": the weight is packed for the reference; pack it again");
  checks::int8_conv_packed_shape(op, header, weight_shape, input);
  ConvShape s = checks::conv_shape(op, input, header.kh, header.kw, stride, padding, dilation);
  s.groups = header.groups;
  s.oc = header.oc;
  checks::scale(op, "scale_x", scale_x);
  checks::zero_point(op, "zero_point_x", zero_point_x, checks::type_of_codes(input));
  checks::channels(op, "scale_w", scale_w, s.oc);
  checks::channels(op, "bias", bias, s.oc);
  checks::conv_residual(op, residual, residual_scale, residual_zero_point, s);
  checks::conv_activation(op, activation, low, high, slope, s.oc);
  checks::code(op, "out_dtype", out_dtype, 6);
  checks::output(op, out_dtype, activation,
                 scale_x != 1.0 || scale_w.has_value() || bias.has_value() || residual.has_value(),
                 out_scale, out_zero_point);

  const Tensor x = arranged(input);
  const Tensor out = new_arranged({s.n, s.oc, s.oh, s.ow}, static_cast<Dtype>(out_dtype));
  if (s.pixels() == 0 || s.oc == 0) return out;
  const OptionalTensor w_scale = dense(scale_w), b = dense(bias), slopes = dense(slope);
  const OptionalTensor r = residual.has_value() ? arranged(*residual) : residual;
  const auto x_scale = static_cast<float>(scale_x);
  const auto x_zero = static_cast<int32_t>(zero_point_x);
  Epilogue e = {};
  e.scale_a = &x_scale;
  e.zero_a = &x_zero;
  e.scale_w = pointer<float>(w_scale);
  e.bias = pointer<float>(b);
  if (r.has_value()) {
    e.residual = r->const_data_ptr();
    e.residual_type = residual_type(op, *r);
    e.residual_scale = static_cast<float>(residual_scale);
    e.residual_zero = static_cast<int32_t>(residual_zero_point);
  }
  e.activation = static_cast<Activation>(activation);
  e.low = static_cast<float>(low);
  e.high = static_cast<float>(high);
  e.slope = pointer<float>(slopes);
  e.slope_stride = slopes.has_value() && slopes->numel() > 1;
  e.out_type = static_cast<Dtype>(out_dtype);
  e.out = out.mutable_data_ptr();
  e.ld = s.oc;
  e.out_inverse_scale = 1.0f / static_cast<float>(out_scale);
  e.out_zero = static_cast<int32_t>(out_zero_point);
  const bool is_signed = input.scalar_type() == ScalarType::Char;
  const auto* codes = static_cast<const uint8_t*>(x.const_data_ptr());
  if (header.layout == Int8ConvLayout::depthwise) {
    depthwise_conv(s, codes, is_signed, x_zero, int8_conv_body(packed.const_data_ptr()), e);
  } else {
    const ConvInput image = {codes, is_signed, static_cast<uint8_t>(zero_point_x)};
    dense_conv(s, image, packed.const_data_ptr(), e);
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("int8_conv_pack", TORCH_BOX(&int8_conv_pack));
  m.impl("int8_conv_unpack", TORCH_BOX(&int8_conv_unpack));
  m.impl("int8_conv_relu", TORCH_BOX(&int8_conv_relu));
}

}  // namespace pyops::cpu
