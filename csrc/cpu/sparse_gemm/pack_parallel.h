// Sparse weights as tensors, packed on torch's threads. Only drivers include this.
#pragma once
#include <cstring>
#include <vector>

#include "checks/sparse_gemm.h"
#include "cpu/common/driver.h"
#include "cpu/int8_sparse_gemm/panels.h"
#include "cpu/sparse_gemm/blocks.h"

namespace pyops::cpu {

// Below so many weights a second thread costs more than it saves.
constexpr int64_t kSerialWeights = 1 << 14;

// Sections that a thread takes at least.
inline int64_t section_grain(const SparseHeader& h) {
  return kSerialWeights / (h.section_rows() * (h.of_float_panels() ? h.k() : h.kc)) + 1;
}
// The header of the form that is estimated to multiply fastest: sections, or panels.
inline SparseHeader in_cheapest_form(const SparseHeader& h, const void* weight) {
  const ConvKernel& kernel = list_kernel_for(static_cast<Dtype>(h.type));
  if (!blocks_possible(kernel, h)) return h;
  const int64_t parts = h.groups * ((h.group_oc() + kernel.nr - 1) / kernel.nr);
  std::vector<FormCosts> costs(static_cast<size_t>(parts));
  parallel_range(parts, kSerialWeights / (kernel.nr * h.k()) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      costs[static_cast<size_t>(i)] = form_costs(kernel, h, weight, i);
    }
  });
  FormCosts all = {};
  for (const FormCosts& c : costs) all.add(c);
  return cheapest_form(kernel, h, all);
}

// Strips of the form for few rows that a thread takes at least.
inline int64_t few_grain(const SparseHeader& h) { return kSerialWeights / (kFewStrip * h.k()) + 1; }

// Where the values of each strip begin, and the last ones end; empty where the form does not pay.
inline std::vector<int64_t> few_begins(const SparseGemmKernel& kernel, const SparseHeader& h,
                                       const void* weight) {
  if (kernel.few == 0 || !few_rows_possible(h)) return {};
  const int64_t strips = FewLayout(h, 0).strips;
  std::vector<int64_t> begins(static_cast<size_t>(strips + 1));
  parallel_range(strips, few_grain(h), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      begins[static_cast<size_t>(i) + 1] = pack_few(h, weight, i, nullptr, nullptr);
    }
  });
  for (size_t i = 0; i < static_cast<size_t>(strips); ++i) begins[i + 1] += begins[i];
  const int64_t entries = begins.back() / dtype_bytes(static_cast<Dtype>(h.type));
  return few_rows_pay(kernel, h, entries) ? begins : std::vector<int64_t>();
}

// Writes that form behind the sections of a packed weight.
inline void write_few(char* packed, const void* weight, const std::vector<int64_t>& begins) {
  const SparseHeader& h = sparse_header(packed);
  const FewLayout few = few_layout(packed);
  const int64_t end = sparse_begins(packed)[h.parts()];
  std::memset(packed + end, 0, static_cast<size_t>(few.begins - end));
  std::memcpy(packed + few.begins, begins.data(), begins.size() * 8);
  parallel_range(few.strips, few_grain(h), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      pack_few(h, weight, i, packed + few.masks + i * few.mask_bytes(),
               packed + few.values + begins[static_cast<size_t>(i)]);
    }
  });
  const int64_t last = few.values + begins.back();
  std::memset(packed + last, 0, static_cast<size_t>(h.bytes - last));
}

// Where each section begins, and the last one ends.
inline std::vector<int64_t> section_begins(const SparseHeader& h, const void* weight) {
  const int64_t parts = h.parts();
  std::vector<int64_t> begins(static_cast<size_t>(parts + 1));
  parallel_range(parts, section_grain(h), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      begins[static_cast<size_t>(i) + 1] = pack_section(h, weight, i, nullptr);
    }
  });
  begins[0] = h.sections_at();
  for (size_t i = 0; i < static_cast<size_t>(parts); ++i) begins[i + 1] += begins[i];
  return begins;
}

// Gives the header the form of panels that takes least time, if that is less than what entries of
// so many bytes take.
inline bool take_panels(const SparseGemmKernel& kernel, const void* weight, int64_t bytes,
                        SparseHeader* h) {
  if (!kernel.panels.quads) return false;
  std::vector<PanelCounts> counts(static_cast<size_t>(h->groups * h->sections()));
  parallel_range(static_cast<int64_t>(counts.size()), kSerialWeights / (kSectionRows * h->k()) + 1,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     counts[static_cast<size_t>(i)] =
                         count_panels(*h, static_cast<const int8_t*>(weight), i);
                   }
                 });
  PanelCounts all;
  for (const PanelCounts& own : counts) all += own;
  return choose_panels(kernel, all, bytes, h);
}

// Of a weight [OC, C / groups, KH, KW], whose dtype and groups have been checked. few: also in the
// form for few rows, where that pays.
inline Tensor new_sparse(const char* op, const Tensor& weight, int64_t groups, bool few) {
  const std::vector<int64_t> shape(weight.sizes().begin(), weight.sizes().end());
  const bool codes = weight.scalar_type() == ScalarType::Char;
  const Dtype type = codes ? Dtype::s8 : checks::conv_dtype(op, "weight", weight.scalar_type());
  const Tensor w = dense(weight);
  const void* from = w.const_data_ptr();
  const SparseGemmKernel& kernel = sparse_kernel_for(type);
  SparseHeader h = sparse_header_of(kernel, type, shape.data(), groups);
  if (!codes) h = in_cheapest_form(h, from);
  std::vector<int64_t> begins = section_begins(h, from);
  if (codes && take_panels(kernel, from, begins.back() - begins[0], &h)) {
    begins = section_begins(h, from);
  }
  const int64_t parts = h.parts(), grain = section_grain(h);
  const std::vector<int64_t> few_values =
      few && !h.of_float_panels() ? few_begins(kernel, h, from) : std::vector<int64_t>();
  h.few = few_values.empty() ? 0 : 1;
  h.bytes = round_up(begins.back(), 64);
  if (h.few) h.bytes = FewLayout(h, h.bytes).bytes(few_values.back());
  const Tensor packed = new_packed(h.bytes);
  char* to = static_cast<char*>(packed.mutable_data_ptr());
  std::memset(to + h.bytes - 64, 0, 64);
  std::memcpy(to, &h, sizeof h);
  std::memcpy(to + 64, begins.data(), begins.size() * 8);
  if (h.of_float_panels()) {
    std::memset(to + h.sums_at(), 0, static_cast<size_t>(h.sections_at() - h.sums_at()));
  }
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
  if (h.few) write_few(to, from, few_values);
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
  parallel_range(h.parts(), section_grain(h), [&](int64_t begin, int64_t end) {
    unpack_sparse(packed.const_data_ptr(), begin, end, matrix);
  });
  return w;
}

}  // namespace pyops::cpu
