// Attention, as every kernel file implements it. For batch b, head h and query t:
//
//   s[j] = scale * sum_d q[b][h][t][d] * k[b][h / group][j][d] + mask[b][h][t][j]
//   p[j] = exp(s[j] - max_j s[j])
//   out[b][t][h][:] = sum_j p[j] * v[b][h / group][j][:] / sum_j p[j]
//
// over the keys j < keys (causal: j <= t); 0 where every s[j] is -infinity or there is no key.
// group = heads / kv_heads. Sums are in float. NaN and infinities propagate; what a causal mask
// hides may be read, so a NaN or an infinity in a hidden v can reach the output.
//
// The queries of the `group` heads that share k and v are the rows of one problem: row r is query
// r % queries of head r / queries. Rows come in blocks, blocks in kv heads, kv heads in batches;
// one call does some blocks on one thread. A row's result does not depend on the split.
#pragma once
#include "cpu/common/types.h"
#include "cpu/isa.h"

namespace pyops::cpu {

enum class MaskType : int { none, f32, bf16, f16, boolean };

// What is multiplied: floats, or pairs of bf16 (16-bit floats rounded, two to a 32-bit lane).
enum class Products : int { f32, bf16 };

// Strides count elements. q, k, v: by batch, head, token; values of a token are adjacent.
struct AttentionProblem {
  const void *q, *k, *v;
  void* out;   // [batch][queries][heads][depth]
  Dtype type;  // of q, k, v and out: f32, bf16 or f16
  int64_t batch, heads, kv_heads, queries, keys, depth;
  int64_t q_stride[3], k_stride[3], v_stride[3];
  const void* mask;
  MaskType mask_type;      // boolean: false stands for -infinity, true for 0
  int64_t mask_stride[4];  // 0 where the mask is broadcast
  float scale;
  bool causal;
};

struct AttentionKernel : KernelRow {
  int mr;  // rows of a tile
  Products products;
  int64_t (*scratch_bytes)(const AttentionProblem&);  // for one thread, 64-byte aligned
  int64_t (*blocks)(const AttentionProblem&);         // in the whole problem
  void (*attend)(const AttentionProblem&, int64_t begin, int64_t end, void* scratch);
};

extern KernelTable attention_kernels;

#define PYOPS_ATTENTION_KERNEL(name, isa, test_only, mr, nr, products)                     \
  namespace name::attention {                                                              \
  int64_t scratch_bytes(const AttentionProblem& problem);                                  \
  int64_t blocks(const AttentionProblem& problem);                                         \
  void attend(const AttentionProblem& problem, int64_t begin, int64_t end, void* scratch); \
  }
#include "cpu/attention/kernels.inc"
#undef PYOPS_ATTENTION_KERNEL

}  // namespace pyops::cpu
