// The attention ops: check, choose a kernel, split the blocks of rows over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "checks/attention.h"
#include "cpu/common/buffer.h"
#include "cpu/common/driver.h"

namespace pyops::cpu {
namespace {

using checks::Heads;
using checks::ScalarType;
using torch::stable::Tensor;

// Multiply-adds below which a second thread costs more than it saves.
constexpr int64_t kSerialProducts = 1 << 17;

// Rows of bf16 products take bfloat16 tensors alone.
const AttentionKernel& kernel_for(Dtype type) {
  const auto& active = best<AttentionKernel>(attention_kernels);
  if (active.products == Products::f32 || type == Dtype::bf16) return active;
  const AttentionKernel* row = &active;  // its level includes those of the rows that follow
  while (row->test_only || row->products != Products::f32) ++row;
  return *row;
}

// With one element after another in a head's row.
Heads with_dense_rows(Heads h) {
  if (h.stride[3] == 1 || h.size[3] == 1) return h;
  h.tensor = torch::stable::contiguous(h.tensor);
  const Tensor& t = h.tensor;
  if (t.dim() == 4) {
    for (int i = 0; i < 4; ++i) h.stride[i] = t.stride(i);
  } else {
    h.stride[0] = t.stride(0), h.stride[1] = h.size[3], h.stride[2] = t.stride(1), h.stride[3] = 1;
  }
  return h;
}

void set_strides(const Heads& h, int64_t (&stride)[3]) {
  for (int i = 0; i < 3; ++i) stride[i] = h.stride[i];
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
  const int64_t all = products < kSerialProducts ? 1 : num_threads();
  const int64_t threads = max64(1, min64(all, blocks));
  char* scratch = static_cast<char*>(buffer.get(threads * bytes));
  const auto part = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernel.attend(p, blocks * i / threads, blocks * (i + 1) / threads, scratch + i * bytes);
    }
  };
  parallel_range(threads, 1, part);
}

// out: of memory [B, T, H, D], as the projection behind it reads it.
void attend(const char* op, const Heads& q_in, const Heads& k_in, const Heads& v_in,
            const std::optional<Tensor>& mask, double scale, bool is_causal, Dtype type,
            const Tensor& out) {
  static const float kZero = 0.0f;
  AttentionProblem p = {};
  p.type = type;
  p.batch = q_in.size[0], p.heads = q_in.size[1], p.queries = q_in.size[2];
  p.kv_heads = k_in.size[1], p.keys = k_in.size[2], p.depth = q_in.size[3];
  p.scale = static_cast<float>(scale);
  p.causal = is_causal;
  if (mask.has_value()) {
    set_mask(*mask, checks::attention_mask(op, *mask, q_in, p.keys, is_causal), &p);
  } else if (!(p.scale > 0.0f && p.scale < 1e30f)) {
    p.mask = &kZero;  // without a mask kernels take the scale out of the maximum: it must be > 0
    p.mask_type = MaskType::f32;
  }
  const Heads q = with_dense_rows(q_in), k = with_dense_rows(k_in), v = with_dense_rows(v_in);
  set_strides(q, p.q_stride), set_strides(k, p.k_stride), set_strides(v, p.v_stride);
  p.q = q.tensor.const_data_ptr(), p.k = k.tensor.const_data_ptr();
  p.v = v.tensor.const_data_ptr();
  p.out = out.mutable_data_ptr();
  if (out.numel() != 0) attend(kernel_for(p.type), p);
}

Tensor attention(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in,
                 const std::optional<Tensor>& mask, double scale, bool is_causal) {
  const char* op = "attention";
  const Dtype type = checks::float_dtype(op, "q", q_in);
  const Heads q = checks::heads_of(op, "q", q_in, q_in), k = checks::heads_of(op, "k", k_in, q_in);
  const Heads v = checks::heads_of(op, "v", v_in, q_in);
  checks::attention_shapes(op, q, k, v);
  const int64_t heads = q.size[1], queries = q.size[2], depth = q.size[3];
  const Tensor out =
      new_tensor({q.size[0], heads, queries, depth},
                 {queries * heads * depth, depth, heads * depth, 1}, q_in.scalar_type());
  attend(op, q, k, v, mask, scale, is_causal, type, out);
  return out;
}

Tensor attention_rows(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in,
                      const std::optional<Tensor>& mask, int64_t head_size, double scale,
                      bool is_causal) {
  const char* op = "attention_rows";
  const Dtype type = checks::float_dtype(op, "q", q_in);
  const Heads q = checks::heads_of_rows(op, "q", q_in, q_in, head_size);
  const Heads k = checks::heads_of_rows(op, "k", k_in, q_in, head_size);
  const Heads v = checks::heads_of_rows(op, "v", v_in, q_in, head_size);
  checks::attention_shapes(op, q, k, v);
  const Tensor out = new_tensor({q_in.size(0), q_in.size(1), q_in.size(2)}, q_in.scalar_type());
  attend(op, q, k, v, mask, scale, is_causal, type, out);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("attention", TORCH_BOX(&attention));
  m.impl("attention_rows", TORCH_BOX(&attention_rows));
}

}  // namespace pyops::cpu
