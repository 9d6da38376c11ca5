// Argument checks of attention, made before a pointer is touched. The words are those of
// pyops/ops/attention_reference.py, which checks with friendlier exception types once these have
// refused.
#pragma once
#include "checks/common.h"
#include "cpu/attention/attention.h"

namespace pyops::checks {

inline void attention_operand(const char* name, const Tensor& t, const Tensor& q) {
  STD_TORCH_CHECK(t.is_cpu(), "attention: ", name, " must be on the CPU like q");
  STD_TORCH_CHECK(t.scalar_type() == q.scalar_type(), "attention: ", name,
                  " must have the dtype of q");
  STD_TORCH_CHECK(t.dim() == 4, "attention: ", name, " must be 4-D [B, H, T, D], but is ", t.dim(),
                  "-D");
}

inline void attention_shapes(const Tensor& q, const Tensor& k, const Tensor& v) {
  STD_TORCH_CHECK(q.dim() == 4, "attention: q must be 4-D [B, H, T, D], but is ", q.dim(), "-D");
  attention_operand("k", k, q);
  attention_operand("v", v, q);
  STD_TORCH_CHECK(q.size(3) >= 1, "attention: the head size must be at least 1, but is 0");
  STD_TORCH_CHECK(k.size(0) == q.size(0) && k.size(3) == q.size(3),
                  "attention: k must have the batch and head size of q");
  bool same = true;
  for (int64_t i = 0; i < 4; ++i) same = same && v.size(i) == k.size(i);
  STD_TORCH_CHECK(same, "attention: v must have the shape of k");
  const int64_t heads = q.size(1), kv_heads = k.size(1);
  STD_TORCH_CHECK(kv_heads == 0 ? heads == 0 : heads % kv_heads == 0, "attention: the heads of q (",
                  heads, ") must be a multiple of those of k (", kv_heads, ")");
}

inline cpu::MaskType attention_mask(const Tensor& mask, const Tensor& q, int64_t keys,
                                    bool is_causal) {
  STD_TORCH_CHECK(!is_causal, "attention: give either mask or is_causal=True, not both");
  STD_TORCH_CHECK(mask.is_cpu(), "attention: mask must be on the CPU like q");
  const int64_t sizes[4] = {q.size(0), q.size(1), q.size(2), keys}, dims = mask.dim();
  bool fits = dims <= 4;
  for (int64_t i = 0; fits && i < dims; ++i) {
    fits = mask.size(i) == 1 || mask.size(i) == sizes[4 - dims + i];
  }
  STD_TORCH_CHECK(fits, "attention: mask must broadcast to [", sizes[0], ", ", sizes[1], ", ",
                  sizes[2], ", ", sizes[3], "]");
  switch (mask.scalar_type()) {
    case ScalarType::Bool: return cpu::MaskType::boolean;
    case ScalarType::Float: return cpu::MaskType::f32;
    case ScalarType::BFloat16: return cpu::MaskType::bf16;
    case ScalarType::Half: return cpu::MaskType::f16;
    default:
      STD_TORCH_CHECK(false,
                      "attention: mask must be torch.bool, torch.float32, torch.bfloat16 or "
                      "torch.float16");
  }
}

}  // namespace pyops::checks
