// Argument checks of the masked_matmul ops, made before a pointer is touched. The words are those
// of pyops/ops/masked_matmul_checks.py.
#pragma once
#include "checks/common.h"
#include "cpu/masked_matmul/pack.h"

namespace pyops::checks {

inline void mask_of(const char* op, const Tensor& mask) {
  cpu_tensor(op, "mask", mask, ScalarType::Bool, "torch.bool");
  STD_TORCH_CHECK(mask.dim() == 2, op, ": mask must be 2-D [N, K], but is ", mask.dim(), "-D");
  STD_TORCH_CHECK(mask.size(0) <= INT32_MAX && mask.size(1) <= INT32_MAX, op,
                  ": mask must have at most 2147483647 rows and columns");
}

// The header of a packed mask of shape [n, k].
inline const cpu::MaskedHeader& packed_mask(const char* op, const Tensor& t, int64_t n, int64_t k) {
  const void* bytes = packed_bytes(op, "masked_pack", t);
  const char* problem = cpu::masked_problem(bytes, t.numel());
  STD_TORCH_CHECK(problem == nullptr, op, ": packed mask: ", problem ? problem : "");
  const cpu::MaskedHeader& h = cpu::masked_header(bytes);
  STD_TORCH_CHECK(h.n == n && h.k == k, op, ": the packed mask is [", h.n, ", ", h.k, "], but [", n,
                  ", ", k, "] is needed");
  return h;
}

// float32 rows of two tensors, as many of each.
inline void masked_rows(const char* op, const Tensor& grad, const Tensor& x) {
  cpu_tensor(op, "grad", grad, ScalarType::Float, "torch.float32");
  cpu_tensor(op, "x", x, ScalarType::Float, "torch.float32");
  at_least_1d(op, "grad", grad);
  at_least_1d(op, "x", x);
  bool same = grad.dim() == x.dim();
  for (int64_t i = 0; same && i + 1 < x.dim(); ++i) same = grad.size(i) == x.size(i);
  STD_TORCH_CHECK(same, op, ": grad and x must have the same dimensions but the last");
}

}  // namespace pyops::checks
