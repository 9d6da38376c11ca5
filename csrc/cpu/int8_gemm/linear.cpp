// int8_linear: rows are quantized and multiplied in one call.
#include "cpu/int8_gemm/codes.h"
#include "cpu/int8_gemm/rows.h"
#include "cpu/int8_sparse_gemm/call.h"

namespace pyops::cpu {

void multiply_rows(const Int8GemmKernel& kernel, const void* x, Dtype type, int64_t m, int64_t k,
                   Operand* weights, int64_t count) {
  static thread_local Buffer scale_buffer;
  float* scales = static_cast<float*>(scale_buffer.get(m * 4));
  Shape s = {m, 0, k};
  for (int64_t i = 0; i < count; ++i) {
    weights[i] = operand_of(kernel, weights[i], scales, round_up(s.n, kernel.nr));
    s.n = weights[i].start + weights[i].n;
  }
  if (s.m == 0 || s.n == 0) return;
  multiply({kernel, weights, count, s, kernel.codes}, [&](int64_t first, int64_t rows, char* to) {
    quantize(kernel, x, type, k, first, rows, to, scales + first);
  });
}

namespace {

Tensor int8_linear(const Tensor& input, const Tensor& packed, const Tensor& scale_w,
                   const OptionalTensor& bias, const OptionalTensor& residual, int64_t activation,
                   int64_t out_dtype) {
  const char* op = "int8_linear";
  const Dtype type = checks::float_dtype(op, "x", input);
  checks::at_least_1d(op, "x", input);
  STD_TORCH_CHECK(scale_w.dim() == 1, op, ": scale_w must be 1-D [N], but is ", scale_w.dim(),
                  "-D");
  const Tensor x = dense(input);
  const int64_t n = scale_w.size(0), k = x.size(x.dim() - 1), m = checks::rows_of(x);
  const CodesWeight weight = codes_weight(op, packed, n, k, m);
  checks::epilogue(op, x, n, scale_w, bias, residual, activation, out_dtype, 3);
  const Operands operands = {dense(scale_w), dense(bias), dense(residual)};
  const Tensor out = output_like(x, n, out_dtype);
  Epilogue e = epilogue_of(operands, activation, out_dtype, out);
  if (weight.kernel == nullptr) {
    sparse_rows(x.const_data_ptr(), type, m, weight.packed, e);
    return out;
  }
  e.w_sum = packed_sums(weight.packed);
  Operand operand = {weight.packed, n, 0, e};
  multiply_rows(*weight.kernel, x.const_data_ptr(), type, m, k, &operand, 1);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) { m.impl("int8_linear", TORCH_BOX(&int8_linear)); }

}  // namespace pyops::cpu
