// The steps that multiply.
#include "cpu/conv_relu/call.h"
#include "cpu/int8_conv_relu/call.h"
#include "cpu/int8_gemm/codes.h"
#include "cpu/net/steps.h"

namespace pyops::cpu {
namespace {

// Call: Int8ConvCall or ConvReluCall.
template <class Call>
class ConvStep final : public NetStep {
 public:
  ConvStep(Call call, int x, int residual) : call_(std::move(call)), x_(x), residual_(residual) {}
  bool by_images() const override { return true; }
  void run(const Places& r, int64_t images) const override {
    call_.run(r[x_].data, residual_ < 0 ? nullptr : r[residual_].data, r[y].data, images);
  }

 private:
  Call call_;
  int x_, residual_;
};

template <class Call>
Step conv_step(Call call, int x, int residual, Value* made) {
  *made = call.out();
  return std::make_unique<ConvStep<Call>>(std::move(call), x, residual);
}

// Rows are images of one pixel.
class FloatLinearStep final : public NetStep {
 public:
  FloatLinearStep(ConvReluCall call, int x, int64_t rows)
      : call_(std::move(call)), x_(x), rows_(rows) {}
  void run(const Places& r, int64_t) const override {
    call_.run(r[x_].data, nullptr, r[y].data, rows_);
  }

 private:
  ConvReluCall call_;
  int x_;
  int64_t rows_;
};

}  // namespace

Step read_conv(StepReader* in, Value* made) {
  in->expect("conv", 20);
  const int x = in->source(0), residual = in->integer(1) == -1 ? -1 : in->source(1);
  const int64_t flags = in->integer(3);
  checks::code("run_net", "flags", flags, 4);
  const Tensor& packed = in->tensor();
  const OptionalTensor scale_w = in->tensor(), bias = in->tensor_if(flags & 1),
                       slope = in->tensor_if(flags & 2);
  const double* n = in->numbers(5);  // scale_x, residual_scale, low, high, out_scale
  const Int8ConvArguments arguments = {packed,
                                       in->integers(8, 4),
                                       in->integers(12, 2),
                                       in->integers(14, 4),
                                       in->integers(18, 2),
                                       n[0],
                                       in->integer(6),
                                       scale_w,
                                       bias,
                                       n[1],
                                       in->integer(7),
                                       in->integer(2),
                                       n[2],
                                       n[3],
                                       slope,
                                       in->integer(4),
                                       n[4],
                                       in->integer(5)};
  Int8ConvCall call("int8_conv_relu", in->value(x), residual < 0 ? nullptr : &in->value(residual),
                    arguments);
  return conv_step(std::move(call), x, residual, made);
}

Step read_float_conv(StepReader* in, Value* made) {
  in->expect("float conv", 16);
  const int x = in->source(0), residual = in->integer(1) == -1 ? -1 : in->source(1);
  const int64_t flags = in->integer(3);
  checks::code("run_net", "flags", flags, 4);
  const Tensor& packed = in->tensor();
  const OptionalTensor bias = in->tensor_if(flags & 1), slope = in->tensor_if(flags & 2);
  const double* n = in->numbers(2);  // low, high
  const ConvArguments arguments = {packed,
                                   in->integers(4, 4),
                                   in->integers(8, 2),
                                   in->integers(10, 4),
                                   in->integers(14, 2),
                                   bias,
                                   in->integer(2),
                                   n[0],
                                   n[1],
                                   slope};
  ConvReluCall call("conv_relu", in->value(x), residual < 0 ? nullptr : &in->value(residual),
                    arguments);
  return conv_step(std::move(call), x, residual, made);
}

Step read_float_linear(StepReader* in, Value* made) {
  const char* op = "float linear";
  in->expect(op, 4);
  const int x = in->source(0);
  const Value& value = in->value(x);
  STD_TORCH_CHECK(value.dim() >= 1, op, ": x must have at least 1 dimension, but has 0");
  STD_TORCH_CHECK(value.dim() != 4, op, ": x must not be an image [N, C, H, W]; flatten it");
  checks::code("run_net", "flags", in->integer(3), 2);
  checks::code(op, "activation", in->integer(2), kLinearActivations);
  const Tensor& packed = in->tensor();
  const OptionalTensor bias = in->tensor_if(in->integer(3));
  const int64_t n = in->integer(1), k = value.sizes.back();
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < value.sizes.size(); ++d) rows *= value.sizes[d];
  const int64_t weight[4] = {n, k, 1, 1}, ones[2] = {1, 1}, none[4] = {};
  const ConvArguments arguments = {packed, {weight, 4},    {ones, 2}, {none, 4}, {ones, 2},
                                   bias,   in->integer(2), 0.0,       0.0,       OptionalTensor()};
  ConvReluCall call("conv_relu", {value.type, {rows, k, 1, 1}}, nullptr, arguments);
  *made = value;
  made->sizes.back() = n;
  return std::make_unique<FloatLinearStep>(std::move(call), x, rows);
}

namespace {

class LinearStep final : public NetStep {
 public:
  LinearStep(StepReader* in, Value* made);
  void run(const Places& r, int64_t) const override {
    Epilogue e = epilogue_;
    e.scale_a = &scale_x_;
    e.zero_a = &zero_x_;
    e.out = r[y].data;
    multiply_codes(weight_, shape_, is_signed_, r[x_].data, e);
  }

 private:
  int x_;
  Shape shape_;
  CodesWeight weight_;
  bool is_signed_;
  float scale_x_;
  int32_t zero_x_;
  OptionalTensor scale_w_, bias_;  // contiguous
  Epilogue epilogue_ = {};         // lacks what run() fills in
};

LinearStep::LinearStep(StepReader* in, Value* made) {
  const char* op = "int8_gemm";
  in->expect("linear", 7);
  x_ = in->source(0);
  const Value& x = in->value(x_);
  const int64_t n = in->integer(1), out_dtype = in->integer(5);
  STD_TORCH_CHECK(checks::is_codes(x), op, ": a must be torch.int8 or torch.uint8");
  const Dtype type = checks::type_of_codes(x);
  STD_TORCH_CHECK(x.dim() >= 1, op, ": a must have at least 1 dimension, but has 0");
  STD_TORCH_CHECK(x.dim() != 4, op, ": a must not be an image [N, C, H, W]; flatten it");
  checks::code("run_net", "flags", in->integer(4), 2);
  const int64_t k = x.sizes.back();
  shape_ = {1, n, k};
  for (size_t d = 0; d + 1 < x.sizes.size(); ++d) shape_.m *= x.sizes[d];
  const Tensor& packed = in->tensor();
  const OptionalTensor scale_w = in->tensor(), bias = in->tensor_if(in->integer(4));
  const double* numbers = in->numbers(2);
  weight_ = codes_weight(op, packed, n, k, shape_.m);
  checks::channels(op, "scale_w", scale_w, n);
  checks::channels(op, "bias", bias, n);
  checks::code(op, "activation", in->integer(3), kLinearActivations);
  checks::code(op, "out_dtype", out_dtype, 6);
  checks::scale(op, "scale_a", numbers[0]);
  checks::zero_point(op, "zero_point_a", in->integer(2), type);
  checks::output(op, out_dtype, in->integer(3), true, numbers[1], in->integer(6));
  is_signed_ = type == Dtype::s8;
  scale_x_ = static_cast<float>(numbers[0]);
  zero_x_ = static_cast<int32_t>(in->integer(2));
  scale_w_ = dense(scale_w);
  bias_ = dense(bias);
  epilogue_.scale_w = pointer<float>(scale_w_);
  epilogue_.bias = pointer<float>(bias_);
  epilogue_.activation = static_cast<Activation>(in->integer(3));
  epilogue_.out_type = static_cast<Dtype>(out_dtype);
  epilogue_.ld = n;
  epilogue_.out_inverse_scale = 1.0f / static_cast<float>(numbers[1]);
  epilogue_.out_zero = static_cast<int32_t>(in->integer(6));
  *made = value_like(x.sizes, epilogue_.out_type);
  made->sizes.back() = n;
}

}  // namespace

Step read_linear(StepReader* in, Value* made) { return std::make_unique<LinearStep>(in, made); }

}  // namespace pyops::cpu
