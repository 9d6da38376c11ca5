// Sparse weights as tensors, packed on torch's threads. Only drivers include this.
#pragma once
#include <cstring>
#include <vector>

#include "checks/sparse_gemm.h"
#include "cpu/common/driver.h"

namespace pyops::cpu {

// Below so many weights a second thread costs more than it saves.
constexpr int64_t kSerialWeights = 1 << 14;

// Of a weight [OC, C / groups, KH, KW], whose dtype and groups have been checked.
inline Tensor new_sparse(const char* op, const Tensor& weight, int64_t groups) {
  const std::vector<int64_t> shape(weight.sizes().begin(), weight.sizes().end());
  const bool codes = weight.scalar_type() == ScalarType::Char;
  const Dtype type = codes ? Dtype::s8 : checks::conv_dtype(op, "weight", weight.scalar_type());
  const auto products = codes ? SparseProducts::s32 : SparseProducts::f32;
  const Tensor w = dense(weight);
  const void* from = w.const_data_ptr();
  SparseHeader h = sparse_header_of(sparse_kernel_for(products), type, shape.data(), groups);
  const int64_t parts = h.parts();
  const int64_t grain = kSerialWeights / (kSectionRows * h.kc) + 1;
  std::vector<int64_t> begins(static_cast<size_t>(parts + 1));
  parallel_range(parts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      begins[static_cast<size_t>(i) + 1] = pack_section(h, from, i, nullptr);
    }
  });
  begins[0] = h.sections_at();
  for (size_t i = 0; i < static_cast<size_t>(parts); ++i) begins[i + 1] += begins[i];
  h.bytes = round_up(begins.back(), 64);
  const Tensor packed = new_packed(h.bytes);
  char* to = static_cast<char*>(packed.mutable_data_ptr());
  std::memset(to + h.bytes - 64, 0, 64);
  std::memcpy(to, &h, sizeof h);
  std::memcpy(to + 64, begins.data(), begins.size() * 8);
  if (codes) {
    std::memset(to + h.sums_at(), 0, static_cast<size_t>(h.sections_at() - h.sums_at()));
    auto* sums = reinterpret_cast<int32_t*>(to + h.sums_at());
    sum_weights(h, static_cast<const int8_t*>(from), sums);
  }
  parallel_range(parts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      pack_section(h, from, i, to + begins[static_cast<size_t>(i)]);
    }
  });
  return packed;
}

// The weight [OC, C / groups, KH, KW] of type f32, bf16 or s8; its shape has been checked, but not
// against the packed one.
inline Tensor new_unpacked(const char* op, const Tensor& packed, const std::vector<int64_t>& shape,
                           Dtype type) {
  const SparseHeader& h = checks::packed_sparse(op, packed, shape, type);
  const Tensor w = new_tensor(shape, kTypes[static_cast<int>(type)]);
  std::memset(w.mutable_data_ptr(), 0, static_cast<size_t>(w.numel() * dtype_bytes(type)));
  const SparseMatrix matrix = {w.mutable_data_ptr(), type, h.k(), 1};
  parallel_range(h.parts(), kSerialWeights / (kSectionRows * h.kc) + 1,
                 [&](int64_t begin, int64_t end) {
                   unpack_sparse(packed.const_data_ptr(), begin, end, matrix);
                 });
  return w;
}

}  // namespace pyops::cpu
