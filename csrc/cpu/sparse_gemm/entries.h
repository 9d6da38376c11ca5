// Where a section's entries are in the weight. Only packing includes this.
#pragma once
#include "cpu/common/half.h"
#include "cpu/sparse_gemm/pack.h"

namespace pyops::cpu {

// Most values of k in a block.
constexpr int64_t kMostDepth = 256;

// Which section a part is.
struct SparsePlace {
  int64_t row, rows;  // outputs of all groups
  int64_t k, k_end;
  bool first;  // block
};

inline SparsePlace place_of(const SparseHeader& h, int64_t part) {
  const int64_t section = part % h.sections(), block = part / h.sections() % h.blocks();
  const int64_t group = part / h.sections() / h.blocks();
  const int64_t row = section * kSectionRows, k = block * h.kc;
  return {group * h.group_oc() + row, min64(kSectionRows, h.group_oc() - row), k,
          min64(h.k(), k + h.kc), block == 0};
}

inline float value_at(const void* w, Dtype type, int64_t at) {
  if (type == Dtype::bf16) return bf16_to_float(static_cast<const uint16_t*>(w)[at]);
  return static_cast<const float*>(w)[at];
}

}  // namespace pyops::cpu
