// How the operands of one kv head, and the rows of one block, lie in a thread's scratch memory.
//
// Everything is in dwords: a float, or a pair of bf16 that follow one another in the summed index.
//
//   k  [panel of nr keys][depth / pair][nr]     a panel's keys are lanes, its depth runs down
//
//        key   0    1   ...  nr-1
//      d 0   k00  k10   ...             f32: one d to a line     bf16: d = 2i and 2i + 1
//      d 1   k01  k11   ...
//
//   v  [keys / pair][depth]                     depth is lanes already; bf16: keys 2i and 2i + 1
//   q  [rows][depth / pair]
//   scores [rows][keys of a chunk]              float; then, in place, weights as dwords of pairs
//   acc [rows][depth], max [rows], sum [rows]   float
//
// Depths are padded with zeros to what the kernel's tiles take, keys to kKeyStep.
#pragma once
#include "cpu/attention/attention.h"

namespace pyops::cpu {

// Keys whose scores stand in scratch at once; up to so many the softmax needs no rescaling.
constexpr int64_t kChunkKeys = 512;
// Padding of keys in v and scores: a tile of 16 pairs.
constexpr int64_t kKeyStep = 32;
// Scores of a block, in bytes: they stay in L1 and L2 together with a panel of k or a part of v.
constexpr int64_t kScoreBytes = 48 * 1024;
constexpr int64_t kMostRows = 64;
// So few rows are not worth packing k and v for: they read them once, where they stand.
constexpr int64_t kDirectRows = 4;

// What a kernel's tiles take; depth_step: of k and q, in dwords.
struct TileShape {
  int64_t mr, nr, lanes, pair, depth_step;
};

// Offsets in bytes, other sizes in dwords.
struct Scratch {
  int64_t rows;   // of a block
  int64_t chunk;  // keys
  int64_t k_depth, v_depth, score_stride;
  int64_t k, v, q, scores, mask, acc, max, sum, bytes;
};

inline int64_t rows_of(const AttentionProblem& p) { return p.heads / p.kv_heads * p.queries; }
inline bool is_direct(const AttentionProblem& p) { return rows_of(p) <= kDirectRows; }

// Blocks of a kv head are as even as whole tiles allow.
inline int64_t rows_of_block(int64_t rows, int64_t keys, int64_t mr) {
  const int64_t fit = kScoreBytes / (4 * max64(keys, 1));
  const int64_t most = max64(mr, min64(fit, kMostRows) / mr * mr);
  const int64_t blocks = max64(1, (rows + most - 1) / most);
  return max64(1, min64(rows, round_up((rows + blocks - 1) / blocks, mr)));
}

inline Scratch scratch_of(const AttentionProblem& p, const TileShape& t) {
  Scratch s = {};
  s.chunk = min64(round_up(p.keys, t.nr), kChunkKeys / t.nr * t.nr);
  s.rows = rows_of_block(rows_of(p), s.chunk, t.mr);
  s.k_depth = round_up((p.depth + t.pair - 1) / t.pair, t.depth_step);
  s.v_depth = round_up(p.depth, t.lanes);
  // One vector more than a power of two: the rows of a tile fall into different sets of L1.
  s.score_stride = round_up(s.chunk, kKeyStep) + 16;
  const bool packed = !is_direct(p);
  const int64_t tile_rows = round_up(s.rows, 16);
  const auto place = [&s](int64_t dwords) {
    const int64_t at = s.bytes;
    s.bytes += round_up(4 * dwords, 64);
    return at;
  };
  s.k = place(packed * round_up(p.keys, t.nr) * s.k_depth);
  s.v = place(packed * round_up(p.keys, kKeyStep) / t.pair * s.v_depth);
  s.q = place(tile_rows * max64(s.k_depth, s.v_depth));
  s.scores = place(tile_rows * s.score_stride);
  s.mask = place(s.score_stride);
  s.acc = place(tile_rows * s.v_depth);
  s.max = place(tile_rows);
  s.sum = place(tile_rows);
  return s;
}

}  // namespace pyops::cpu
