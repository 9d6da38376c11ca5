// The ops: packs, new values, and the product of rows. Convolutions with a sparse weight are calls
// of conv_relu.
#include "cpu/conv_relu/call.h"
#include "cpu/sparse_gemm/pack_parallel.h"

namespace pyops::cpu {
namespace {

Tensor sparse_pack(const Tensor& weight, int64_t groups) {
  const char* op = "sparse_pack";
  checks::sparse_dtype(op, "weight", weight.scalar_type());
  const Sizes shape = checks::conv_weight(op, weight, groups);
  checks::sparse_depth(op, weight.scalar_type(), shape[1] * shape[2] * shape[3]);
  return new_sparse(op, weight, groups, true);
}

Tensor sparse_unpack(const Tensor& packed, std::vector<int64_t> weight_shape,
                     int64_t weight_dtype) {
  const char* op = "sparse_unpack";
  checks::conv_weight_shape(op, weight_shape);
  checks::code(op, "weight_dtype", weight_dtype, 3);
  constexpr Dtype kTypesOfWeights[] = {Dtype::f32, Dtype::bf16, Dtype::s8};
  return new_unpacked(op, packed, weight_shape, kTypesOfWeights[weight_dtype]);
}

void sparse_refresh(const Tensor& packed, const Tensor& weight, bool transposed) {
  const char* op = "sparse_refresh";
  const Dtype type = checks::conv_dtype(op, "weight", weight.scalar_type());
  checks::cpu_tensor(op, "weight", weight);
  STD_TORCH_CHECK(weight.dim() == (transposed ? 2 : 4), op, ": weight must be ",
                  transposed ? "2-D [K, N]" : "4-D [OC, C / groups, KH, KW]", ", but is ",
                  weight.dim(), "-D");
  std::vector<int64_t> shape(weight.sizes().begin(), weight.sizes().end());
  if (transposed) shape = {shape[1], shape[0], 1, 1};
  const SparseHeader& h = checks::packed_sparse(op, packed, shape, type);
  const Tensor w = dense(weight);
  SparseMatrix matrix = {const_cast<void*>(w.const_data_ptr()), type, h.k(), 1};
  if (transposed) matrix.row_step = 1, matrix.k_step = h.oc;
  parallel_range(h.parts(), section_grain(h), [&](int64_t begin, int64_t end) {
    refresh_sparse(packed.mutable_data_ptr(), begin, end, matrix);
  });
  if (h.few == 0) return;
  parallel_range(few_layout(packed.const_data_ptr()).strips, few_grain(h),
                 [&](int64_t begin, int64_t end) {
                   refresh_few(packed.mutable_data_ptr(), begin, end, matrix);
                 });
}

// Rows are images of one pixel.
Value images_of(const Tensor& rows) {
  return {rows.scalar_type(), {checks::rows_of(rows), rows.size(rows.dim() - 1), 1, 1}};
}

Tensor sparse_linear(const Tensor& input, const Tensor& packed, int64_t n,
                     const OptionalTensor& bias, const OptionalTensor& residual,
                     int64_t activation) {
  const char* op = "sparse_linear";
  const Dtype type = checks::conv_dtype(op, "x", input.scalar_type());
  checks::at_least_1d(op, "x", input);
  checks::residual_rows(op, residual, input, n);
  checks::code(op, "activation", activation, kLinearActivations);
  const Tensor x = dense(input);
  const OptionalTensor shortcut = dense(residual);
  const Value images = images_of(x);
  Value added;
  if (shortcut.has_value()) added = images_of(*shortcut);
  const std::vector<int64_t> shape = {n, images.size(1), 1, 1}, ones = {1, 1}, none = {0, 0, 0, 0};
  STD_TORCH_CHECK(checks::is_sparse(packed), op,
                  ": packed must be the 1-D torch.uint8 tensor that sparse_pack returns");
  const ConvReluCall call(op, images, shortcut.has_value() ? &added : nullptr,
                          {packed, shape, ones, none, ones, bias, activation, 0, 0, std::nullopt});
  const Tensor out = output_like(x, n, static_cast<int64_t>(type));
  call.run(x.const_data_ptr(), pointer<void>(shortcut), out.mutable_data_ptr(), images.size(0));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("sparse_pack", TORCH_BOX(&sparse_pack));
  m.impl("sparse_unpack", TORCH_BOX(&sparse_unpack));
  m.impl("sparse_refresh", TORCH_BOX(&sparse_refresh));
  m.impl("sparse_linear", TORCH_BOX(&sparse_linear));
}

}  // namespace pyops::cpu
