#include "cpu/conv_relu/call.h"

#include "cpu/conv_relu/run.h"
#include "cpu/conv_relu/winograd.h"
#include "cpu/sparse_gemm/blocks.h"
#include "cpu/sparse_gemm/run.h"

namespace pyops::cpu {

const ConvKernel& conv_kernel_for(Dtype type) {
  const auto& active = best<ConvKernel>(conv_relu_kernels);
  if (active.products == ConvProducts::f32 || type == Dtype::bf16) return active;
  const ConvKernel* row = &active;  // its level includes those of the rows that follow
  while (row->test_only || row->products != ConvProducts::f32) ++row;
  return *row;
}

const ConvKernel& list_kernel_for(Dtype type) {
  const ConvKernel* row = &conv_kernel_for(type);
  while (row->strips() || (row->test_only && row != &best<ConvKernel>(conv_relu_kernels))) ++row;
  return *row;
}

ConvReluCall::ConvReluCall(const char* op, const Value& x, const Value* residual,
                           const ConvArguments& a)
    : epilogue_() {
  type_ = checks::conv_dtype(op, "x", x.type);
  shape_ = checks::conv_shape(op, x, a.weight_shape, a.stride, a.padding, a.dilation);
  take_weight(op, a);
  checks::channels(op, "bias", a.bias, shape_.oc);
  checks::conv_residual(op, residual, x, shape_);
  checks::conv_activation(op, a.activation, a.low, a.high, a.slope, shape_.oc);
  bias_ = dense(a.bias);
  slope_ = dense(a.slope);
  Epilogue& e = epilogue_;
  e.bias = pointer<float>(bias_);
  e.residual_type = e.out_type = type_;
  e.activation = static_cast<Activation>(a.activation);
  e.low = static_cast<float>(a.low);
  e.high = static_cast<float>(a.high);
  e.slope = pointer<float>(slope_);
  e.slope_stride = slope_.has_value() && slope_->numel() > 1;
  e.ld = shape_.oc;
}

void ConvReluCall::take_weight(const char* op, const ConvArguments& a) {
  int64_t groups;
  if (checks::is_sparse(a.packed)) {
    const SparseHeader& h = checks::packed_sparse(op, a.packed, a.weight_shape, type_);
    if (h.of_float_panels()) {
      kernel_ = &list_kernel_for(type_);
      checks::lists_layout(op, h, *kernel_);
    } else {
      sparse_ = &sparse_kernel_for(static_cast<Dtype>(h.type));
      checks::sparse_layout(op, h, *sparse_);
    }
    groups = h.groups;
  } else {
    const ConvHeader& h = checks::packed_conv(op, a.packed, a.weight_shape, type_);
    checks::conv_winograd(op, h, shape_);
    kernel_ = &conv_kernel_for(type_);
    checks::packed_layout(op, h, *kernel_,
                          h.nr == kernel_->nr && (h.depthwise() || h.kr == kernel_->kr));
    groups = h.groups;
  }
  STD_TORCH_CHECK(groups == shape_.groups, op, ": the weight is packed for ", groups,
                  " groups, but x has ", shape_.c, " channels, which makes ", shape_.groups);
  packed_ = a.packed.const_data_ptr();
}

Value ConvReluCall::out() const {
  return value_like({shape_.n, shape_.oc, shape_.oh, shape_.ow}, type_);
}

void ConvReluCall::run(const void* x, const void* residual, void* out, int64_t images) const {
  ConvShape shape = shape_;
  shape.n = images;
  if (shape.pixels() == 0) return;
  Epilogue e = epilogue_;
  e.residual = residual;
  e.out = out;
  if (sparse_ != nullptr) return run_sparse({*sparse_, packed_, shape, type_, x, e});
  if (is_sparse(packed_)) {
    const ConvLists lists = lists_of(packed_);
    return run_conv({*kernel_, packed_, shape, type_, x, e, &lists});
  }
  const ConvCall call = {*kernel_, packed_, shape, type_, x, e};
  winograd_runs(conv_header(packed_), shape) ? run_winograd(call) : run_conv(call);
}

}  // namespace pyops::cpu
