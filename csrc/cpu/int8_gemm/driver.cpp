// The int8 ops on codes: check, choose a kernel, bring rows into the form that it takes, split the
// product over threads. linear.cpp has those that quantize their input.
#include <tuple>
#include <vector>

#include "cpu/int8_gemm/codes.h"
#include "cpu/int8_gemm/pack_parallel.h"
#include "cpu/int8_sparse_gemm/call.h"

namespace pyops::cpu {

void multiply_codes(const CodesWeight& weight, const Shape& s, bool is_signed, const void* a,
                    const Epilogue& epilogue) {
  if (s.m == 0 || s.n == 0) return;
  const void* packed = weight.packed;
  if (weight.kernel == nullptr) {
    return sparse_codes(rows_shape(s.m, s.k, s.n), a, is_signed, 0, packed, epilogue);
  }
  const Int8GemmKernel& kernel = *weight.kernel;
  const Codes form = kernel.form_of(is_signed);
  Operand w = {packed, s.n, 0, epilogue};
  w.epilogue.w_sum = packed_sums(packed);
  w.epilogue.zero_shift = shift_of(form, is_signed);
  const char* codes = static_cast<const char*>(a);
  const Product product = {kernel, &w, 1, s, form};
  if (form == (is_signed ? Codes::s8 : Codes::u8) && s.k % kDepthStep == 0) {
    return multiply_prepared(product, codes, 0, s.m);  // a is in the kernel's form as it stands
  }
  multiply(product, [&](int64_t first, int64_t count, char* to) {
    prepare_codes(codes + first * s.k, is_signed, s.k, count, s.k, form, to,
                  round_up(s.k, kDepthStep));
  });
}

namespace {

Tensor int8_pack(const Tensor& weight) {
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Char, "int8_pack: weight must be torch.int8");
  STD_TORCH_CHECK(weight.dim() == 2, "int8_pack: weight must be 2-D [N, K], but is ", weight.dim(),
                  "-D");
  const int64_t n = weight.size(0), k = weight.size(1);
  STD_TORCH_CHECK(k <= kMaxK, "int8_pack: K is ", k, ", but at most 65536 is exact in int32");
  const Tensor w = dense(weight);
  const int8_t* from = static_cast<const int8_t*>(w.const_data_ptr());
  const PackPlan plan = plan_pack(from, n, k);
  const Tensor packed = new_packed(plan.bytes());
  pack_planned(plan, packed.mutable_data_ptr());
  return packed;
}

Tensor int8_unpack(const Tensor& packed, int64_t n, int64_t k) {
  checks::packed("int8_unpack", packed, n, k);
  const Tensor w = new_tensor({n, k}, ScalarType::Char);
  unpack(packed.const_data_ptr(), static_cast<int8_t*>(w.mutable_data_ptr()));
  return w;
}

std::tuple<Tensor, Tensor, Tensor> quantize_rows(const Tensor& input, bool symmetric,
                                                 bool is_signed) {
  const Dtype type = checks::float_dtype("quantize_rows", "x", input);
  checks::at_least_1d("quantize_rows", "x", input);
  const Tensor x = dense(input);
  const std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  const std::vector<int64_t> row_sizes(sizes.begin(), sizes.end() - 1);
  const ScalarType code_type = is_signed ? ScalarType::Char : ScalarType::Byte;
  const Tensor q = new_tensor(sizes, code_type);
  const Tensor scale = new_tensor(row_sizes, ScalarType::Float);
  const Tensor zero = new_tensor(row_sizes, ScalarType::Int);
  const int64_t k = sizes.back(), m = checks::rows_of(x);
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* to = static_cast<char*>(q.mutable_data_ptr());
  float* scales = static_cast<float*>(scale.mutable_data_ptr());
  int32_t* zeros = static_cast<int32_t*>(zero.mutable_data_ptr());
  const Int8GemmKernel& kernel = active_kernel();
  const Codes codes = is_signed ? Codes::s8 : Codes::u8;
  parallel_range(m, kSerialCodes / (k + 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernel.quantize_row({from + r * k * dtype_bytes(type), type, k, k, symmetric, codes,
                           to + r * k, scales + r, zeros + r});
    }
  });
  return {q, scale, zero};
}

Tensor int8_gemm(const Tensor& input, const Tensor& packed, int64_t n,
                 const OptionalTensor& scale_a, const OptionalTensor& zero_point_a,
                 const OptionalTensor& scale_w, const OptionalTensor& bias,
                 const OptionalTensor& residual, int64_t activation, int64_t out_dtype,
                 double out_scale, int64_t out_zero_point) {
  const bool is_signed = input.scalar_type() == ScalarType::Char;
  STD_TORCH_CHECK(is_signed || input.scalar_type() == ScalarType::Byte,
                  "int8_gemm: a must be torch.int8 or torch.uint8");
  checks::at_least_1d("int8_gemm", "a", input);
  const Shape s = {checks::rows_of(input), n, input.size(input.dim() - 1)};
  const CodesWeight weight = codes_weight("int8_gemm", packed, n, s.k, s.m);
  checks::epilogue("int8_gemm", input, n, scale_w, bias, residual, activation, out_dtype, 6);
  checks::rows("int8_gemm", "scale_a", scale_a, ScalarType::Float, "torch.float32", s.m);
  checks::rows("int8_gemm", "zero_point_a", zero_point_a, ScalarType::Int, "torch.int32", s.m);
  checks::output(
      "int8_gemm", out_dtype, activation,
      scale_a.has_value() || scale_w.has_value() || bias.has_value() || residual.has_value(),
      out_scale, out_zero_point);

  const OptionalTensor row_scale = dense(scale_a), row_zero = dense(zero_point_a);
  checks::finite_scale("int8_gemm", out_dtype, row_scale);

  const Tensor a = dense(input);
  const Tensor out = output_like(a, n, out_dtype);
  if (s.m == 0 || s.n == 0) return out;
  const Operands operands = {dense(scale_w), dense(bias), dense(residual)};
  Epilogue e = epilogue_of(operands, activation, out_dtype, out);
  e.scale_a = pointer<float>(row_scale);
  e.scale_a_stride = scale_a.has_value() && scale_a->numel() > 1;
  e.zero_a = pointer<int32_t>(row_zero);
  e.zero_a_stride = zero_point_a.has_value() && zero_point_a->numel() > 1;
  e.out_inverse_scale = 1.0f / static_cast<float>(out_scale);
  e.out_zero = static_cast<int32_t>(out_zero_point);
  multiply_codes(weight, s, is_signed, a.const_data_ptr(), e);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("int8_pack", TORCH_BOX(&int8_pack));
  m.impl("int8_unpack", TORCH_BOX(&int8_unpack));
  m.impl("quantize_rows", TORCH_BOX(&quantize_rows));
  m.impl("int8_gemm", TORCH_BOX(&int8_gemm));
}

}  // namespace pyops::cpu
