// odd.cpp with products of pairs: tests their packing and driver on any machine.
#include <cstddef>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/sparse_gemm/pack.h"

namespace pyops::cpu::pairs_odd {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/fused_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/sparse_gemm/items.inl.h"

constexpr int kVecs = 3;

struct Values {
  float of[2];
};
using Weights = Values;

inline Values widened(const char* a, const char* b) {
  return {{bf16_to_float(read<uint16_t>(a)), bf16_to_float(read<uint16_t>(b))}};
}

template <int V>
inline void gather(const char* a, const char* b, Values (&to)[V]) {
  for (int v = 0; v < V; ++v) to[v] = widened(a + 2 * v, b + 2 * v);
}
inline F32 dot2(F32 acc, const Values& x, const Weights& w) {
  return fma(x.of[1], w.of[1], fma(x.of[0], w.of[0], acc));
}
inline Weights load_weights(const char* p) { return widened(p, p + 2); }

#include "cpu/sparse_gemm/pairs.inl.h"

inline void transpose_block(const SparseTokens& t) {
  auto* out = static_cast<uint16_t*>(t.out);
  for (int64_t k = t.k0; k < t.k1; ++k, out += kTokens) {
    for (int i = 0; i < t.tokens; ++i) {
      out[i] = static_cast<const uint16_t*>(t.rows[i])[t.offset + k];
    }
  }
}

}  // namespace

void sparse_tokens(const SparseTokens& task) { transpose_block(task); }
void sparse_multiply(const SparseSection& task) { multiply_section(task); }
void sparse_finish(const SparseSums& task) { finish_section(task); }
void sparse_few_rows(const SparseFewRows& task) { odd::sparse_few_rows(task); }

}  // namespace pyops::cpu::pairs_odd
