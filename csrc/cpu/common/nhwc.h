// Images as kernels walk them: [N, C, H, W] tensors with the memory of [N, H, W, C].
#pragma once
#include "cpu/common/driver.h"

namespace pyops::cpu {

inline bool is_nhwc(const Tensor& t) {
  int64_t stride = 1;
  for (const int64_t dim : {1, 3, 2, 0}) {
    if (t.size(dim) != 1 && t.stride(dim) != stride) return false;
    stride *= t.size(dim);
  }
  return true;
}

// Images as decoders leave them, [N, C, H, W] in memory, which quantizing can read as they are.
inline bool is_planes(const Tensor& t) { return t.dim() == 4 && t.is_contiguous() && !is_nhwc(t); }

// 4-D tensors with the memory of [N, H, W, C], others contiguous.
inline Tensor arranged(const Tensor& t) {
  if (t.dim() != 4) return dense(t);
  if (t.numel() == 0 || is_nhwc(t)) return t;
  using torch::stable::transpose;
  return torch::stable::contiguous(transpose(transpose(t, 1, 2), 2, 3));
}

inline Tensor new_arranged(const Value& value) {
  const Sizes& s = value.sizes;
  if (s.size() != 4) return new_tensor(s, value.type);
  return new_tensor(s, {s[1] * s[2] * s[3], 1, s[1] * s[3], s[1]}, value.type);
}

}  // namespace pyops::cpu
