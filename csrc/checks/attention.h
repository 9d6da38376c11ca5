// Argument checks of attention and attention_rows, made before a pointer is touched. The words are
// those of pyops/ops/attention_reference.py, which checks with friendlier exception types once
// these have refused.
#pragma once
#include "checks/common.h"
#include "cpu/attention/attention.h"

namespace pyops::checks {

// A tensor as [B, H, T, D].
struct Heads {
  Tensor tensor;
  int64_t size[4], stride[4];
};

inline void attention_operand(const char* op, const char* name, const Tensor& t, const Tensor& q,
                              int64_t dims, const char* axes) {
  STD_TORCH_CHECK(t.is_cpu(), op, ": ", name, " must be on the CPU like q");
  STD_TORCH_CHECK(t.scalar_type() == q.scalar_type(), op, ": ", name, " must have the dtype of q");
  STD_TORCH_CHECK(t.dim() == dims, op, ": ", name, " must be ", dims, "-D ", axes, ", but is ",
                  t.dim(), "-D");
}

inline Heads heads_of(const char* op, const char* name, const Tensor& t, const Tensor& q) {
  attention_operand(op, name, t, q, 4, "[B, H, T, D]");
  Heads heads = {t, {}, {}};
  for (int i = 0; i < 4; ++i) heads.size[i] = t.size(i), heads.stride[i] = t.stride(i);
  return heads;
}

inline Heads heads_of_rows(const char* op, const char* name, const Tensor& t, const Tensor& q,
                           int64_t head_size) {
  attention_operand(op, name, t, q, 3, "[B, T, H * D]");
  STD_TORCH_CHECK(head_size >= 1, op, ": head_size must be at least 1, but is ", head_size);
  STD_TORCH_CHECK(t.size(2) % head_size == 0, op, ": the rows of ", name, " have ", t.size(2),
                  " columns, which is no multiple of head_size, ", head_size);
  return {t,
          {t.size(0), t.size(2) / head_size, t.size(1), head_size},
          {t.stride(0), head_size * t.stride(2), t.stride(1), t.stride(2)}};
}

inline void attention_shapes(const char* op, const Heads& q, const Heads& k, const Heads& v) {
  STD_TORCH_CHECK(q.size[3] >= 1, op, ": the head size must be at least 1, but is 0");
  STD_TORCH_CHECK(k.size[0] == q.size[0] && k.size[3] == q.size[3], op,
                  ": k must have the batch and head size of q");
  bool same = true;
  for (int i = 0; i < 4; ++i) same = same && v.size[i] == k.size[i];
  STD_TORCH_CHECK(same, op, ": v must have the shape of k");
  const int64_t heads = q.size[1], kv_heads = k.size[1];
  STD_TORCH_CHECK(kv_heads == 0 ? heads == 0 : heads % kv_heads == 0, op, ": the heads of q (",
                  heads, ") must be a multiple of those of k (", kv_heads, ")");
}

inline cpu::MaskType attention_mask(const char* op, const Tensor& mask, const Heads& q,
                                    int64_t keys, bool is_causal) {
  STD_TORCH_CHECK(!is_causal, op, ": give either mask or is_causal=True, not both");
  STD_TORCH_CHECK(mask.is_cpu(), op, ": mask must be on the CPU like q");
  const int64_t sizes[4] = {q.size[0], q.size[1], q.size[2], keys}, dims = mask.dim();
  bool fits = dims <= 4;
  for (int64_t i = 0; fits && i < dims; ++i) {
    fits = mask.size(i) == 1 || mask.size(i) == sizes[4 - dims + i];
  }
  STD_TORCH_CHECK(fits, op, ": mask must broadcast to [", sizes[0], ", ", sizes[1], ", ", sizes[2],
                  ", ", sizes[3], "]");
  switch (mask.scalar_type()) {
    case ScalarType::Bool: return cpu::MaskType::boolean;
    case ScalarType::Float: return cpu::MaskType::f32;
    case ScalarType::BFloat16: return cpu::MaskType::bf16;
    case ScalarType::Half: return cpu::MaskType::f16;
    default:
      STD_TORCH_CHECK(false, op,
                      ": mask must be torch.bool, torch.float32, torch.bfloat16 or torch.float16");
  }
}

}  // namespace pyops::checks
