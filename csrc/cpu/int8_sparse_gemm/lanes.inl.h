// Sparse products of codes with tokens in lanes: exact, in int32. Include after epilogue.inl.h,
// fused_*.inl.h and items.inl.h. The kernel file provides
//
//   kTokens      tokens of a tile: nr
//   kQuadVecs    vectors of them whose sums of 4 outputs stay in registers
//   Codes        four codes each of kLanes tokens: code i of entry i
//   Weights      four weights, in all lanes
//
//   const char* row_at<i>(x, at)      row_of of items.inl.h
//   void gather<kFrom>(rows, Codes (&to)[V])      of vectors kFrom, ... of tokens, from four rows
//   I32 dot4(I32 acc, const Codes&, const Weights&)
//   Weights load_weights(const char* p)           of one output
//
// Any four entries of an output make a group, whatever their k: what one multiplication takes of
// a token is brought together from four rows of the block, for all tokens at once.

constexpr int kVecs = kTokens / kLanes;

inline int32_t* sums_of(const SparseSection& t, int row) {
  return static_cast<int32_t*>(t.sums) + (row < kSpareRow ? row : kSpareRow) * kTokens;
}
#include "cpu/sparse_gemm/runs.inl.h"

template <int V>
inline void begin_sums(const int32_t* from, bool first, I32 (&acc)[V]) {
  PYOPS_UNROLL
  for (int v = 0; v < V; ++v) acc[v] = first ? set1_i32(0) : load(from + v * kLanes);
}

template <int V>
inline void end_sums(const I32 (&acc)[V], int32_t* to) {
  PYOPS_UNROLL
  for (int v = 0; v < V; ++v) store(to + v * kLanes, acc[v]);
}

// The codes of the four entries at `p`.
template <int kFrom, int V>
inline void gather_at(const char* x, const char* p, Codes (&to)[V]) {
  const auto at = read<uint64_t>(p);
  const char* const rows[4] = {row_at<0>(x, at), row_at<1>(x, at), row_at<2>(x, at),
                               row_at<3>(x, at)};
  gather<kFrom>(rows, to);
}

template <int V>
inline void add_products(const Codes (&codes)[V], const Weights& w, I32 (&acc)[V]) {
  PYOPS_UNROLL
  for (int v = 0; v < V; ++v) acc[v] = dot4(acc[v], codes[v], w);
}

// Runs of two outputs: four entries of one and four of the other, whose sums do not wait for one
// another.
template <int V>
const char* add_pairs(const SparseSection& t, const char* p, int64_t runs, uint64_t* done) {
  const char* x = static_cast<const char*>(t.x);
  Runs<SparsePair, Int8PairItem> all(t, p, runs);
  while (all.next()) {
    const SparsePair& run = all.run;
    p = all.items;
    int32_t *to_a = sums_of(t, run.rows[0]), *to_b = sums_of(t, run.rows[1]);
    I32 a[V], b[V];
    begin_sums(to_a, t.first, a);
    begin_sums(to_b, t.first, b);
    for (; p != all.end; p += sizeof(Int8PairItem)) {
      const char* w = p + offsetof(Int8PairItem, w);
      Codes codes[V];
      gather_at<0>(x, p, codes);
      add_products(codes, load_weights(w), a);
      gather_at<0>(x, p + 8, codes);
      add_products(codes, load_weights(w + 4), b);
    }
    end_sums(a, to_a);
    end_sums(b, to_b);
  }
  *done |= all.rows();
  return all.end;
}

// One run of 4 outputs that share their entries' k, over V vectors of tokens from kFrom on.
template <int kFrom, int V>
inline void add_quad(const SparseSection& t, const SparseQuad& run, const char* p) {
  const char* x = static_cast<const char*>(t.x);
  I32 acc[4][V];
  PYOPS_UNROLL
  for (int i = 0; i < 4; ++i) {
    begin_sums(sums_of(t, run.rows[i]) + kFrom * kLanes, t.first, acc[i]);
  }
  for (const char* end = p + run.items * sizeof(Int8QuadItem); p != end;
       p += sizeof(Int8QuadItem)) {
    const char* w = p + offsetof(Int8QuadItem, w);
    Codes codes[V];
    gather_at<kFrom>(x, p, codes);
    PYOPS_UNROLL
    for (int i = 0; i < 4; ++i) add_products(codes, load_weights(w + 4 * i), acc[i]);
  }
  PYOPS_UNROLL
  for (int i = 0; i < 4; ++i) end_sums(acc[i], sums_of(t, run.rows[i]) + kFrom * kLanes);
}

// Vectors [kFrom, kEnd), as many at once as there are registers for.
template <int kFrom, int kEnd>
inline void add_quad_vecs(const SparseSection& t, const SparseQuad& run, const char* p) {
  constexpr int V = kEnd - kFrom < kQuadVecs ? kEnd - kFrom : kQuadVecs;
  add_quad<kFrom, V>(t, run, p);
  if constexpr (kFrom + V < kEnd) add_quad_vecs<kFrom + V, kEnd>(t, run, p);
}

template <int V>
void add_quads(const SparseSection& t, const char* p, int64_t runs, uint64_t* done) {
  Runs<SparseQuad, Int8QuadItem> all(t, p, runs);
  while (all.next()) {
    const SparseQuad& run = all.run;
    p = all.items;
    add_quad_vecs<0, V>(t, run, p);
  }
  *done |= all.rows();
}

#include "cpu/sparse_gemm/multiply.inl.h"

// kLanes tokens of all columns at a time: rows of the output may be 4 KiB apart, and share a set of
// the first-level cache.
inline void finish_section(const SparseSums& t) {
  alignas(64) int32_t start[kSectionRows], tile[kLanes * kSectionRows];
  Epilogue e = *t.epilogue;
  start_sums(&e, t.n0, t.cols, start);
  const FinishFn finish = finish_for(e);
  for (int lane = 0; lane < t.tokens; lane += kLanes) {
    const int32_t* from = static_cast<const int32_t*>(t.sums) + lane;
    for (int col = 0; col < t.cols; col += kLanes) {
      F32 vecs[kLanes];
      PYOPS_UNROLL
      for (int i = 0; i < kLanes; ++i) {
        vecs[i] = as_f32(add(load(from + (col + i) * kTokens), set1_i32(start[col + i])));
      }
      transpose(vecs);
      PYOPS_UNROLL
      for (int i = 0; i < kLanes; ++i) store(tile + i * kSectionRows + col, as_i32(vecs[i]));
    }
    const int rows = t.tokens - lane < kLanes ? t.tokens - lane : kLanes;
    finish(e, tile, kSectionRows, t.m0 + lane, rows, t.n0, t.cols);
  }
}
