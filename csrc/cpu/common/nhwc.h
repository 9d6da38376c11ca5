// Images as kernels walk them: [N, C, H, W] tensors with the memory of [N, H, W, C].
#pragma once
#include "cpu/common/driver.h"

namespace pyops::cpu {

using Sizes = std::vector<int64_t>;

inline Sizes sizes_of(const Tensor& t) { return Sizes(t.sizes().begin(), t.sizes().end()); }

inline bool is_nhwc(const Tensor& t) {
  int64_t stride = 1;
  for (const int64_t dim : {1, 3, 2, 0}) {
    if (t.size(dim) != 1 && t.stride(dim) != stride) return false;
    stride *= t.size(dim);
  }
  return true;
}

// 4-D tensors with the memory of [N, H, W, C], others contiguous.
inline Tensor arranged(const Tensor& t) {
  if (t.dim() != 4) return dense(t);
  if (t.numel() == 0 || is_nhwc(t)) return t;
  using torch::stable::transpose;
  return torch::stable::contiguous(transpose(transpose(t, 1, 2), 2, 3));
}

inline Tensor new_arranged(const Sizes& s, Dtype type) {
  const ScalarType scalar = kTypes[static_cast<int>(type)];
  if (s.size() != 4) return new_tensor(s, scalar);
  return new_tensor(s, {s[1] * s[2] * s[3], 1, s[1] * s[3], s[1]}, scalar);
}

}  // namespace pyops::cpu
