// The gradient of a masked weight: products of two float32 matrices at the places that a mask keeps
// (a sampled dense-dense product, SDDMM), as every kernel file implements them.
//
//   grad[n][k] = mask[n][k] ? sum_m dy[m][n] * x[m][k] : 0
//
// Sums are float32, in the order of m within a lane, then over lanes: with u = 2^-24 an element is
// within (M + 8) u (|dy|^T @ |x|) of the exact sum. A place that the mask leaves out is 0 whatever
// dy and x hold there, NaN and Inf too.
//
// Tokens (rows m) lie in lanes: a chunk of them is turned to [k][tokens] and [n][tokens] first, so
// that the places of row n multiply one row of dy, held in registers, by rows of x in L1. Places
// come in quads of one row, of which the sums are reduced together.
#pragma once
#include "cpu/common/types.h"
#include "cpu/isa.h"

namespace pyops::cpu {

// A section of the mask: so many rows by so many columns, whose x is 32 KiB for a chunk of 64
// tokens. Rows and columns within it are bytes.
constexpr int64_t kMaskedRows = 256, kMaskedDepth = 128;
constexpr int kQuad = 4;

// Rows of tokens to lanes: to[c][t] = from[t][c] for t < tokens, and 0 up to a whole vector.
struct TokenBlock {
  const float* from;
  int64_t ld;
  int64_t tokens, cols;  // 0 < tokens <= those of a chunk
  float* to;             // [cols][tokens of a chunk]
};

// Row of the section, and its quads.
struct MaskedRow {
  uint8_t row, quads;
};

struct MaskedSection {
  const MaskedRow* rows;  // all of the section, in any order
  int64_t count;
  const uint8_t* depths;  // [quads][kQuad], columns of the section; a row's are ascending, and its
                          // last one is repeated up to a whole quad
  int64_t quads;
  int64_t cols;
};

struct MaskedProducts {
  MaskedSection section;
  const float* x;   // [cols][tokens of a chunk]
  const float* dy;  // [kMaskedRows][tokens of a chunk]
  int64_t tokens;
  bool first;   // the sums hold nothing yet
  float* sums;  // [quads][sum_floats]
};

struct MaskedGrad {
  MaskedSection section;
  const float* sums;
  float* grad;  // the section's first element
  int64_t ld;
  bool add;  // to what is there, in place of overwriting it
};

struct MaskedKernel : KernelRow {
  int tokens;      // of a chunk
  int sum_floats;  // of a quad
  void (*turn)(const TokenBlock&);
  void (*multiply)(const MaskedProducts&);
  void (*finish)(const MaskedGrad&);
};

extern KernelTable masked_matmul_kernels;

#define PYOPS_MASKED_MATMUL_KERNEL(name, isa, test_only, tokens, sum_floats) \
  namespace name::masked {                                                   \
  void turn(const TokenBlock& block);                                        \
  void multiply(const MaskedProducts& products);                             \
  void finish(const MaskedGrad& grad);                                       \
  }
#include "cpu/masked_matmul/kernels.inc"
#undef PYOPS_MASKED_MATMUL_KERNEL

}  // namespace pyops::cpu
