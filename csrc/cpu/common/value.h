// A tensor as the checks of an op see it: its type and sizes. A step of a net has it before the
// tensor is there; 4-D ones will have the memory of [N, H, W, C], others will be contiguous.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <vector>

#include "cpu/common/types.h"

namespace pyops::cpu {

using Sizes = std::vector<int64_t>;
// A list of integers that somebody else holds.
using Ints = torch::headeronly::IntHeaderOnlyArrayRef;

struct Value {
  torch::headeronly::ScalarType type;
  Sizes sizes;

  torch::headeronly::ScalarType scalar_type() const { return type; }
  int64_t dim() const { return static_cast<int64_t>(sizes.size()); }
  int64_t size(int64_t d) const { return sizes[static_cast<size_t>(d)]; }
  int64_t numel() const {
    int64_t count = 1;
    for (const int64_t size : sizes) count *= size;
    return count;
  }
};

inline Sizes sizes_of(const torch::stable::Tensor& t) {
  return Sizes(t.sizes().begin(), t.sizes().end());
}
inline Value value_of(const torch::stable::Tensor& t) { return {t.scalar_type(), sizes_of(t)}; }

// Types in the order of Dtype.
constexpr torch::headeronly::ScalarType kTypes[] = {
    torch::headeronly::ScalarType::Float, torch::headeronly::ScalarType::BFloat16,
    torch::headeronly::ScalarType::Half,  torch::headeronly::ScalarType::Char,
    torch::headeronly::ScalarType::Byte,  torch::headeronly::ScalarType::Int};
inline Value value_like(Sizes sizes, Dtype type) {
  return {kTypes[static_cast<int>(type)], std::move(sizes)};
}

}  // namespace pyops::cpu
