// Sums in float32, tokens in lanes: [kSectionRows + 1][kTokens]. Include after
// epilogue_float.inl.h and fused_*.inl.h. The kernel file provides
//
//   kVecs        vectors of a tile: nr = kVecs * kLanes

constexpr int kTokens = kVecs * kLanes;

inline float* sums_of(const SparseSection& t, int row) {
  return static_cast<float*>(t.sums) + (row < kSpareRow ? row : kSpareRow) * kTokens;
}
#include "cpu/sparse_gemm/runs.inl.h"

template <int V>
inline void begin_sums(const float* from, bool first, F32 (&acc)[V]) {
  PYOPS_UNROLL
  for (int v = 0; v < V; ++v) acc[v] = first ? set1(0.0f) : load(from + v * kLanes);
}

template <int V>
inline void end_sums(const F32 (&acc)[V], float* to) {
  PYOPS_UNROLL
  for (int v = 0; v < V; ++v) store(to + v * kLanes, acc[v]);
}

// kLanes tokens of all columns at a time: rows of the output may be 4 KiB apart, and share a set of
// the first-level cache.
inline void finish_section(const SparseSums& t) {
  alignas(64) float tile[kLanes * kSectionRows];
  const FinishFloatFn finish = finish_float_for(*t.epilogue);
  for (int lane = 0; lane < t.tokens; lane += kLanes) {
    const float* from = static_cast<const float*>(t.sums) + lane;
    for (int col = 0; col < t.cols; col += kLanes) {
      F32 vecs[kLanes];
      PYOPS_UNROLL
      for (int i = 0; i < kLanes; ++i) vecs[i] = load(from + (col + i) * kTokens);
      transpose(vecs);
      PYOPS_UNROLL
      for (int i = 0; i < kLanes; ++i) store(tile + i * kSectionRows + col, vecs[i]);
    }
    const int rows = t.tokens - lane < kLanes ? t.tokens - lane : kLanes;
    finish(*t.epilogue, tile, kSectionRows, t.m0 + lane, rows, t.n0, t.cols);
  }
}
