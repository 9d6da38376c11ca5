// Sparse products with tokens in lanes, in float32. Include after epilogue_float.inl.h and
// fused_*.inl.h and items.inl.h. The kernel file provides
//
//   kVecs        vectors of a tile: nr = kVecs * kLanes
//   kQuadVecs    of those, how many times 4 sums stay in registers
//   Four         four weights; load_four(p), and spread<i>(four): weight i in all lanes

#include "cpu/sparse_gemm/sums.inl.h"

// Damaged items may point anywhere: plain C++ loads from multiples of 4 alone.
inline F32 load_x(const float* x) {
  if constexpr (kLanes == 1) return read<F32>(reinterpret_cast<const char*>(x));
  return load(x);
}

template <int V>
inline void add_products(F32 w, const float* x, F32 (&acc)[V]) {
  PYOPS_UNROLL
  for (int v = 0; v < V; ++v) acc[v] = fma(w, load_x(x + v * kLanes), acc[v]);
}

// Where rows of x of an item's entries begin.
struct Places {
  uint64_t row[4];
};

inline Places places_at(const char* p) {
  const auto at = read<uint64_t>(p);
  return {{at & 0xffff, at >> 16 & 0xffff, at >> 32 & 0xffff, at >> 48}};
}

// Keeps `value` where it is in the code: behind what leads to `sum`.
inline void stay_behind(uint64_t* value, F32* sum) {
#if PYOPS_X86
  __asm__ volatile("" : "+r"(*value), "+v"(*sum));
#endif
}

// One item, and meanwhile the places of the next: one of them behind each four products. Loads that
// follow right upon their places cost a tenth of the time.
template <bool kNext, int V>
inline void add_pair(const char* x, const char* p, Places* at, F32 (&a)[V], F32 (&b)[V]) {
  const Four w = load_four(p + offsetof(SparsePairItem, w));
  const F32 four[4] = {spread<0>(w), spread<1>(w), spread<2>(w), spread<3>(w)};
  uint64_t next = kNext ? read<uint64_t>(p + sizeof(SparsePairItem)) : 0;
  PYOPS_UNROLL
  for (int i = 0; i < 4; ++i) {
    F32(&acc)[V] = i % 2 == 0 ? a : b;
    add_products(four[i], reinterpret_cast<const float*>(x + at->row[i]), acc);
    if constexpr (kNext) {
      stay_behind(&next, &acc[V - 1]);
      at->row[i] = next >> (16 * i) & 0xffff;
      stay_behind(&at->row[i], &acc[V - 1]);
    }
  }
}

// Runs of two outputs: an entry of one and an entry of the other, whose sums do not wait for one
// another.
template <int V>
const char* add_pairs(const SparseSection& t, const char* p, int64_t runs, uint64_t* done) {
  const char* x = static_cast<const char*>(t.x);
  Runs<SparsePair, SparsePairItem> all(t, p, runs);
  while (all.next()) {
    const SparsePair& run = all.run;
    p = all.items;
    float *to_a = sums_of(t, run.rows[0]), *to_b = sums_of(t, run.rows[1]);
    F32 a[V], b[V];
    begin_sums(to_a, t.first, a);
    begin_sums(to_b, t.first, b);
    if (run.items > 0) {
      Places at = places_at(p);
      const char* last = all.end - sizeof(SparsePairItem);
      for (; p != last; p += sizeof(SparsePairItem)) add_pair<true>(x, p, &at, a, b);
      add_pair<false>(x, p, &at, a, b);
    }
    end_sums(a, to_a);
    end_sums(b, to_b);
  }
  *done |= all.rows();
  return all.end;
}

// One run of 4 outputs that share their entries' k, over V vectors from `lane` on.
template <int V>
__attribute__((noinline)) void add_quad(const SparseSection& t, const SparseQuad& run,
                                        const char* p, int lane) {
  const char* x = static_cast<const char*>(t.x) + lane * 4;
  F32 acc[4][V];
  PYOPS_UNROLL
  for (int i = 0; i < 4; ++i) begin_sums(sums_of(t, run.rows[i]) + lane, t.first, acc[i]);
  for (const char* end = p + run.items * sizeof(SparseQuadItem); p != end;
       p += sizeof(SparseQuadItem)) {
    const float* from = reinterpret_cast<const float*>(x + read<uint16_t>(p));
    const Four w = load_four(p + 4);
    F32 line[V];
    PYOPS_UNROLL
    for (int v = 0; v < V; ++v) line[v] = load_x(from + v * kLanes);
    const F32 four[4] = {spread<0>(w), spread<1>(w), spread<2>(w), spread<3>(w)};
    PYOPS_UNROLL
    for (int i = 0; i < 4; ++i) {
      PYOPS_UNROLL
      for (int v = 0; v < V; ++v) acc[i][v] = fma(four[i], line[v], acc[i][v]);
    }
  }
  PYOPS_UNROLL
  for (int i = 0; i < 4; ++i) end_sums(acc[i], sums_of(t, run.rows[i]) + lane);
}

template <int V>
void add_quads(const SparseSection& t, const char* p, int64_t runs, uint64_t* done) {
  constexpr int kPass = V < kQuadVecs ? V : kQuadVecs;
  Runs<SparseQuad, SparseQuadItem> all(t, p, runs);
  while (all.next()) {
    const SparseQuad& run = all.run;
    p = all.items;
    int v = 0;
    for (; v + kPass <= V; v += kPass) add_quad<kPass>(t, run, p, v * kLanes);
    for (; v < V; ++v) add_quad<1>(t, run, p, v * kLanes);
  }
  *done |= all.rows();
}

#include "cpu/sparse_gemm/multiply.inl.h"

// kLanes tokens by kLanes values of k. The lines of the next values are fetched meanwhile: there
// are more rows than streams that hardware follows.
inline void transpose_floats(const void* const* rows, int64_t at, float* out) {
  F32 vecs[kLanes];
  PYOPS_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    const float* from = static_cast<const float*>(rows[i]) + at;
    vecs[i] = load(from);
    __builtin_prefetch(from + kLanes);
  }
  transpose(vecs);
  PYOPS_UNROLL
  for (int i = 0; i < kLanes; ++i) store(out + i * kTokens, vecs[i]);
}

// kLanes tokens by at most kLanes values of k, which lie in one segment.
inline void transpose_tokens(const SparseTokens& t, const void* const* rows, int lane, int64_t at,
                             int count, float* out) {
  if (t.type == Dtype::f32 && count == kLanes && lane + kLanes <= t.tokens) {
    return transpose_floats(rows + lane, at, out);
  }
  F32 vecs[kLanes];
  PYOPS_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    const int token = lane + i < t.tokens ? lane + i : t.tokens - 1;
    vecs[i] = load_float(rows[token], t.type, at, count);
  }
  transpose(vecs);
  if (count == kLanes) {
    PYOPS_UNROLL
    for (int i = 0; i < kLanes; ++i) store(out + i * kTokens, vecs[i]);
    return;
  }
  PYOPS_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    if (i < count) store(out + i * kTokens, vecs[i]);
  }
}

inline void transpose_block(const SparseTokens& t) {
  float* out = static_cast<float*>(t.out) + t.first;
  int64_t segment = t.k0 / t.depth, d = t.k0 % t.depth;
  for (int64_t k = t.k0; k < t.k1;) {
    const int count = static_cast<int>(min64(kLanes, min64(t.depth - d, t.k1 - k)));
    for (int lane = 0; lane < t.tokens; lane += kLanes) {
      transpose_tokens(t, t.rows + segment * t.tokens, lane, t.offset + d, count, out + lane);
    }
    out += count * kTokens;
    k += count;
    d += count;
    if (d == t.depth) d = 0, ++segment;
  }
}
