#include "cpu/int8_conv_relu/call.h"

#include "cpu/common/buffer.h"
#include "cpu/common/direct_codes.h"
#include "cpu/int8_conv_relu/dense.h"
#include "cpu/int8_conv_relu/depthwise.h"
#include "cpu/int8_gemm/operands.h"
#include "cpu/int8_sparse_gemm/call.h"

namespace pyops::cpu {
namespace {

// Raises unless a kernel that is allowed now reads every group's layout.
void check_kernels(const char* op, const Int8ConvHeader& header, int64_t pixels) {
  if (header.layout != Int8ConvLayout::groups) return;
  for (int64_t group = 0; group < header.groups; ++group) {
    kernel_for(op, packed_header(int8_conv_group(&header, group)), pixels);
  }
}

}  // namespace

Int8ConvCall::Int8ConvCall(const char* op, const Value& x, const Value* residual,
                           const Int8ConvArguments& a)
    : epilogue_() {
  STD_TORCH_CHECK(checks::is_codes(x), op, ": x must be torch.int8 or torch.uint8");
  const Int8ConvHeader header = take_weight(op, a.packed);
  checks::int8_conv_packed_shape(op, header, a.weight_shape, x);
  shape_ = checks::conv_shape(op, x, header.kh, header.kw, a.stride, a.padding, a.dilation);
  shape_.groups = header.groups;
  shape_.oc = header.oc;
  checks::scale(op, "scale_x", a.scale_x);
  checks::zero_point(op, "zero_point_x", a.zero_point_x, checks::type_of_codes(x));
  checks::channels(op, "scale_w", a.scale_w, shape_.oc);
  checks::channels(op, "bias", a.bias, shape_.oc);
  checks::conv_residual(op, residual, a.residual_scale, a.residual_zero_point, shape_);
  checks::conv_activation(op, a.activation, a.low, a.high, a.slope, shape_.oc);
  checks::code(op, "out_dtype", a.out_dtype, 6);
  const bool operands = a.scale_w.has_value() || a.bias.has_value() || residual != nullptr;
  checks::output(op, a.out_dtype, a.activation, a.scale_x != 1.0 || operands, a.out_scale,
                 a.out_zero_point);
  if (!sparse_) check_kernels(op, int8_conv_header(packed_), shape_.pixels());

  scale_w_ = dense(a.scale_w);
  bias_ = dense(a.bias);
  slope_ = dense(a.slope);
  scale_x_ = static_cast<float>(a.scale_x);
  zero_x_ = static_cast<int32_t>(a.zero_point_x);
  is_signed_ = x.type == ScalarType::Char;
  Epilogue& e = epilogue_;
  e.scale_w = pointer<float>(scale_w_);
  e.bias = pointer<float>(bias_);
  if (residual != nullptr) {
    const bool codes = checks::is_codes(*residual);
    e.residual_type = codes ? checks::type_of_codes(*residual)
                            : checks::float_dtype(op, "residual", residual->type);
    e.residual_scale = static_cast<float>(a.residual_scale);
    e.residual_zero = static_cast<int32_t>(a.residual_zero_point);
  }
  e.activation = static_cast<Activation>(a.activation);
  e.low = static_cast<float>(a.low);
  e.high = static_cast<float>(a.high);
  e.slope = pointer<float>(slope_);
  e.slope_stride = slope_.has_value() && slope_->numel() > 1;
  e.out_type = static_cast<Dtype>(a.out_dtype);
  e.ld = shape_.oc;
  e.out_inverse_scale = 1.0f / static_cast<float>(a.out_scale);
  e.out_zero = static_cast<int32_t>(a.out_zero_point);
  e.scale_a = &scale_x_;
  e.residual = residual;  // whether there is one
  find_direct_codes(&e, shape_.oc, 255.0 * 128.0 * static_cast<double>(header.depth()));
}

Int8ConvHeader Int8ConvCall::take_weight(const char* op, const Tensor& packed) {
  sparse_ = checks::is_sparse(packed);
  packed_ = packed.const_data_ptr();
  if (sparse_) return checks::int8_conv_header_of(checks::packed_int8_sparse(op, packed));
  const Int8ConvHeader& header = checks::packed_int8_conv(op, packed);
  STD_TORCH_CHECK(header.layout != Int8ConvLayout::plain, op,
                  ": the weight is packed for the reference; pack it again");
  return header;
}

Value Int8ConvCall::out() const {
  return value_like({shape_.n, shape_.oc, shape_.oh, shape_.ow}, epilogue_.out_type);
}

void Int8ConvCall::run_depthwise(const ConvShape& shape, const void* x, const Epilogue& e) const {
  const auto& kernel = best<Int8ConvReluKernel>(int8_conv_relu_kernels);
  const int64_t threads = num_threads();
  const DepthwiseCall call(kernel, shape, x, is_signed_, zero_x_, int8_conv_body(packed_), e,
                           threads);
  static thread_local Buffer buffer;
  char* scratch = static_cast<char*>(buffer.get(call.parts() * call.scratch_bytes()));
  parallel_range(call.parts(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) call.run(i, scratch + i * call.scratch_bytes());
  });
}

void Int8ConvCall::run(const void* x, const void* residual, void* out, int64_t images) const {
  ConvShape shape = shape_;
  shape.n = images;
  if (shape.pixels() == 0 || shape.oc == 0) return;
  Epilogue e = epilogue_;
  e.scale_a = &scale_x_;
  e.zero_a = &zero_x_;
  e.residual = residual;
  e.out = out;
  const auto padding = static_cast<uint8_t>(zero_x_);
  if (sparse_) return sparse_codes(shape, x, is_signed_, padding, packed_, e);
  if (int8_conv_header(packed_).layout == Int8ConvLayout::depthwise) {
    return run_depthwise(shape, x, e);
  }
  const CodesImages image = {static_cast<const uint8_t*>(x), is_signed_, padding};
  dense_conv(shape, image, packed_, e);
}

}  // namespace pyops::cpu
