// The pools and the ops that take codes one by one: bring tensors into NHWC order, hand over to
// pool.cpp and rows.cpp.
#include "cpu/common/nhwc.h"
#include "cpu/int8_pool/call.h"

namespace pyops::cpu {
namespace {

int64_t images_of(const Tensor& t) { return t.dim() == 4 ? t.size(0) : 0; }

Tensor run_pool(const char* op, const Tensor& x_in, const PoolCall& call) {
  checks::cpu_tensor(op, "x", x_in);
  const Tensor x = arranged(x_in), out = new_arranged(call.out());
  call.run(x.const_data_ptr(), out.mutable_data_ptr(), x.size(0));
  return out;
}

Tensor int8_pool(const Tensor& x, int64_t kind, const std::vector<int64_t>& kernel,
                 const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                 const std::vector<int64_t>& dilation, bool ceil_mode, bool count_include_pad,
                 int64_t divisor_override, double scale_x, int64_t zero_point_x, int64_t out_dtype,
                 double out_scale, int64_t out_zero_point) {
  const char* op = "int8_pool";
  const PoolArguments a = {kernel,          stride, padding, dilation, ceil_mode, count_include_pad,
                           divisor_override};
  const PoolNumbers numbers = {scale_x, zero_point_x, out_dtype, out_scale, out_zero_point};
  return run_pool(op, x, PoolCall(op, value_of(x), kind, a, numbers));
}

Tensor int8_adaptive_pool(const Tensor& x, int64_t kind, const std::vector<int64_t>& output_size,
                          double scale_x, int64_t zero_point_x, int64_t out_dtype, double out_scale,
                          int64_t out_zero_point) {
  const char* op = "int8_adaptive_pool";
  const PoolNumbers numbers = {scale_x, zero_point_x, out_dtype, out_scale, out_zero_point};
  return run_pool(op, x, PoolCall(op, value_of(x), kind, output_size, numbers));
}

Tensor int8_quantize(const Tensor& x_in, double scale, int64_t zero, int64_t out_dtype) {
  const CodesCall call =
      CodesCall::quantize("int8_quantize", value_of(x_in), scale, zero, out_dtype);
  const Tensor out = new_arranged(call.out());
  if (is_planes(x_in)) {
    call.run_planes(x_in.const_data_ptr(), out.mutable_data_ptr(), images_of(x_in));
  } else {
    call.run(arranged(x_in).const_data_ptr(), nullptr, out.mutable_data_ptr(), images_of(x_in));
  }
  return out;
}

Tensor int8_dequantize(const Tensor& q, double scale, int64_t zero, int64_t out_dtype) {
  const char* op = "int8_dequantize";
  checks::cpu_tensor(op, "q", q);
  const CodesCall call = CodesCall::dequantize(op, value_of(q), scale, zero, out_dtype);
  const Tensor out = new_arranged(call.out());
  call.run(arranged(q).const_data_ptr(), nullptr, out.mutable_data_ptr(), images_of(q));
  return out;
}

Tensor int8_add(const Tensor& a_in, const Tensor& b_in, double scale_a, int64_t zero_a,
                double scale_b, int64_t zero_b, int64_t activation, double low, double high,
                int64_t out_dtype, double out_scale, int64_t out_zero) {
  const char* op = "int8_add";
  checks::cpu_tensor(op, "a", a_in);
  checks::cpu_tensor(op, "b", b_in);
  const CodesCall call = CodesCall::add(
      op, value_of(a_in), value_of(b_in),
      {scale_a, zero_a, scale_b, zero_b, activation, low, high, out_dtype, out_scale, out_zero});
  const Tensor a = arranged(a_in), b = arranged(b_in), out = new_arranged(call.out());
  call.run(a.const_data_ptr(), b.const_data_ptr(), out.mutable_data_ptr(), images_of(a));
  return out;
}

Tensor int8_concat(const std::vector<Tensor>& xs, const std::vector<double>& scales,
                   const std::vector<int64_t>& zeros, int64_t dim, double out_scale,
                   int64_t out_zero, int64_t out_dtype) {
  const char* op = "int8_concat";
  STD_TORCH_CHECK(scales.size() == xs.size() && zeros.size() == xs.size(), op, ": ", xs.size(),
                  " tensors need as many scales and zero points");
  std::vector<Value> values;
  std::vector<const Value*> at;
  values.reserve(xs.size());
  for (const Tensor& x : xs) {
    checks::cpu_tensor(op, "xs", x);
    values.push_back(value_of(x));
    at.push_back(&values.back());
  }
  const ConcatCall call(op, at, scales.data(), zeros.data(), dim, out_scale, out_zero, out_dtype);
  const Tensor out = new_arranged(call.out());
  for (size_t i = 0; i < xs.size(); ++i) {
    call.run(i, arranged(xs[i]).const_data_ptr(), out.mutable_data_ptr());
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("int8_pool", TORCH_BOX(&int8_pool));
  m.impl("int8_adaptive_pool", TORCH_BOX(&int8_adaptive_pool));
  m.impl("int8_quantize", TORCH_BOX(&int8_quantize));
  m.impl("int8_dequantize", TORCH_BOX(&int8_dequantize));
  m.impl("int8_add", TORCH_BOX(&int8_add));
  m.impl("int8_concat", TORCH_BOX(&int8_concat));
}

}  // namespace pyops::cpu
