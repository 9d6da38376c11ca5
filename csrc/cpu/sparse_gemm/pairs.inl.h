// Sparse bf16 products with tokens in lanes, two entries at a time. Include after
// epilogue_float.inl.h, fused_*.inl.h and items.inl.h. The kernel file provides
//
//   kVecs        vectors of a tile: nr = kVecs * kLanes
//   Values       two values each of kLanes tokens: those of two entries
//   Weights      two weights, in all lanes
//
//   void gather(const char* a, const char* b, Values (&to)[V])     of V vectors, from two rows
//   F32 dot2(F32 acc, const Values&, const Weights&)
//   Weights load_weights(const char* p)                            of one output
//
// Any two entries of an output are multiplied at once, whatever their k: what one multiplication
// takes of a token is brought together from two rows of the block, for all tokens at once.

#include "cpu/sparse_gemm/sums.inl.h"

template <int V>
inline void add_products(const Values (&x)[V], const Weights& w, F32 (&acc)[V]) {
  PYOPS_UNROLL
  for (int v = 0; v < V; ++v) acc[v] = dot2(acc[v], x[v], w);
}

// Runs of two outputs: two entries of one and two of the other, whose sums do not wait for one
// another.
template <int V>
const char* add_pairs(const SparseSection& t, const char* p, int64_t runs, uint64_t* done) {
  const char* x = static_cast<const char*>(t.x);
  Runs<SparsePair, Bf16PairItem> all(t, p, runs);
  while (all.next()) {
    const SparsePair& run = all.run;
    p = all.items;
    float *to_a = sums_of(t, run.rows[0]), *to_b = sums_of(t, run.rows[1]);
    F32 a[V], b[V];
    begin_sums(to_a, t.first, a);
    begin_sums(to_b, t.first, b);
    for (; p != all.end; p += sizeof(Bf16PairItem)) {
      const auto at = read<uint64_t>(p);
      const char* w = p + offsetof(Bf16PairItem, w);
      Values values[V];
      gather(row_of(x, at, 0), row_of(x, at, 1), values);
      add_products(values, load_weights(w), a);
      gather(row_of(x, at, 2), row_of(x, at, 3), values);
      add_products(values, load_weights(w + 4), b);
    }
    end_sums(a, to_a);
    end_sums(b, to_b);
  }
  *done |= all.rows();
  return all.end;
}

// One run of 4 outputs that share their entries' k.
template <int V>
inline void add_quad(const SparseSection& t, const SparseQuad& run, const char* p) {
  const char* x = static_cast<const char*>(t.x);
  F32 acc[4][V];
  PYOPS_UNROLL
  for (int i = 0; i < 4; ++i) begin_sums(sums_of(t, run.rows[i]), t.first, acc[i]);
  for (const char* end = p + run.items * sizeof(Bf16QuadItem); p != end;
       p += sizeof(Bf16QuadItem)) {
    const auto at = read<uint32_t>(p);
    const char* w = p + offsetof(Bf16QuadItem, w);
    Values values[V];
    gather(row_of(x, at, 0), row_of(x, at, 1), values);
    PYOPS_UNROLL
    for (int i = 0; i < 4; ++i) add_products(values, load_weights(w + 4 * i), acc[i]);
  }
  PYOPS_UNROLL
  for (int i = 0; i < 4; ++i) end_sums(acc[i], sums_of(t, run.rows[i]));
}

template <int V>
void add_quads(const SparseSection& t, const char* p, int64_t runs, uint64_t* done) {
  Runs<SparseQuad, Bf16QuadItem> all(t, p, runs);
  while (all.next()) {
    const SparseQuad& run = all.run;
    p = all.items;
    add_quad<V>(t, run, p);
  }
  *done |= all.rows();
}

#include "cpu/sparse_gemm/multiply.inl.h"
