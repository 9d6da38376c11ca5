// The attention op: check, choose a kernel, split the blocks of rows over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "checks/attention.h"
#include "cpu/common/buffer.h"
#include "cpu/common/new_tensor.h"

namespace pyops::cpu {
namespace {

using checks::ScalarType;
using torch::stable::Tensor;

// Multiply-adds below which a second thread costs more than it saves.
constexpr int64_t kSerialProducts = 1 << 19;

// Rows of bf16 products take bfloat16 tensors alone.
const AttentionKernel& kernel_for(Dtype type) {
  const auto& active = best<AttentionKernel>(attention_kernels);
  if (active.products == Products::f32 || type == Dtype::bf16) return active;
  const AttentionKernel* row = &active;  // its level includes those of the rows that follow
  while (row->test_only || row->products != Products::f32) ++row;
  return *row;
}

Tensor with_dense_rows(const Tensor& t) {
  return t.stride(3) == 1 || t.size(3) == 1 ? t : torch::stable::contiguous(t);
}

void set_strides(const Tensor& t, int64_t (&stride)[3]) {
  for (int i = 0; i < 3; ++i) stride[i] = t.stride(i);
}

// Aligned to the right; 0 where one value stands for all.
void set_mask(const Tensor& mask, MaskType type, AttentionProblem* p) {
  p->mask = mask.const_data_ptr();
  p->mask_type = type;
  for (int64_t i = 0, dims = mask.dim(); i < dims; ++i) {
    p->mask_stride[4 - dims + i] = mask.size(i) == 1 ? 0 : mask.stride(i);
  }
}

void attend(const AttentionKernel& kernel, const AttentionProblem& p) {
  static thread_local Buffer buffer;
  const int64_t blocks = kernel.blocks(p), bytes = round_up(kernel.scratch_bytes(p), 64);
  const int64_t products = 2 * p.batch * p.heads * p.queries * p.keys * p.depth;
  const int64_t all = products < kSerialProducts ? 1 : torch::stable::get_num_threads();
  const int64_t threads = max64(1, min64(all, blocks));
  char* scratch = static_cast<char*>(buffer.get(threads * bytes));
  const auto part = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernel.attend(p, blocks * i / threads, blocks * (i + 1) / threads, scratch + i * bytes);
    }
  };
  if (threads == 1) return part(0, 1);
  torch::stable::parallel_for(0, threads, 1, part);
}

Tensor attention(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in,
                 const std::optional<Tensor>& mask, double scale, bool is_causal) {
  static const float kZero = 0.0f;
  AttentionProblem p = {};
  p.type = checks::float_dtype("attention", "q", q_in);
  checks::attention_shapes(q_in, k_in, v_in);
  p.batch = q_in.size(0), p.heads = q_in.size(1), p.queries = q_in.size(2);
  p.kv_heads = k_in.size(1), p.keys = k_in.size(2), p.depth = q_in.size(3);
  p.scale = static_cast<float>(scale);
  p.causal = is_causal;
  if (mask.has_value()) {
    set_mask(*mask, checks::attention_mask(*mask, q_in, p.keys, is_causal), &p);
  } else if (!(p.scale > 0.0f && p.scale < 1e30f)) {
    p.mask = &kZero;  // without a mask kernels take the scale out of the maximum: it must be > 0
    p.mask_type = MaskType::f32;
  }
  const Tensor q = with_dense_rows(q_in), k = with_dense_rows(k_in), v = with_dense_rows(v_in);
  set_strides(q, p.q_stride), set_strides(k, p.k_stride), set_strides(v, p.v_stride);
  p.q = q.const_data_ptr(), p.k = k.const_data_ptr(), p.v = v.const_data_ptr();
  // [B, H, T, D] of memory [B, T, H, D], as the projection behind it reads it.
  const int64_t token = p.heads * p.depth;
  const Tensor out = new_tensor({p.batch, p.heads, p.queries, p.depth},
                                {p.queries * token, p.depth, token, 1}, q.scalar_type());
  p.out = out.mutable_data_ptr();
  if (out.numel() != 0) attend(kernel_for(p.type), p);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) { m.impl("attention", TORCH_BOX(&attention)); }

}  // namespace pyops::cpu
