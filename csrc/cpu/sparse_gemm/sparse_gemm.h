// Products with a sparse weight, as every kernel file implements them. With g the group of output
// channel oc, over the taps and channels k for which the weight holds an entry:
//
//   sum[m][oc] = sum over k of x[m][g][k] * w[oc][k]
//
// followed by the epilogue of common/epilogue.h. m counts pixels of a convolution's output
// (conv_relu.h: x[m][g][k] is what the tap reads there, 0 outside the image), or rows of a Linear,
// which is a convolution of images of one pixel.
//
// Tokens are in lanes: a tile of `nr` values of m is transposed into a block of x, [kc][nr], which
// stays in the first-level cache; an entry multiplies one row of it, and adds to the `nr` sums of
// its output. So no value of x that meets no entry is touched, whatever the pattern, and any
// pattern runs at the rate at which rows can be loaded: 4 vectors, a quarter of an offset and a
// quarter of four weights for each entry. Where 4 outputs share their pattern the rows are loaded
// once for all of them, and multiplications bound the rate as they do in a dense product.
//
// Sums are float32, in order of k, with fused multiply-adds where the level has them; of pairs, two
// bf16 products at a time, whose denormals count as 0; or, of codes (int8_sparse_gemm.h), int32 and
// exact.
#pragma once
#include "cpu/common/conv_shape.h"
#include "cpu/common/epilogue.h"
#include "cpu/isa.h"

namespace pyops::cpu {

enum class SparseProducts : int { f32, s32, bf16 };

// Outputs of a section (pack.h), and the row of its sums that nobody reads.
constexpr int kSectionRows = 64, kSpareRow = kSectionRows;
// Most tokens of a tile.
constexpr int kMostTokens = 64;
// Most tokens of few_rows.
constexpr int kMostFewTokens = 16;
// A row of a block of x begins at one of these bytes.
constexpr int64_t kBlockReach = 1 << 16;

// Lanes [first, first + tokens) of rows [k0, k1) of x become a block of x. Codes and pairs come
// from one segment, and for all tokens of a tile at once.
struct SparseTokens {
  const void* const* rows;  // [segments][tokens]: where a segment of `depth` values of k begins
  int64_t depth;
  int64_t offset;  // elements from there to the group's first channel
  Dtype type;
  int tokens, first;
  int64_t k0, k1;
  void* out;  // [k1 - k0][nr]
};

// Adds the products of one section (pack.h) to its sums.
struct SparseSection {
  const char *section, *end;  // bytes that a caller may have damaged: any value is safe
  const void* x;              // the block; readable up to kBlockReach and a row behind it
  void* sums;                 // [kSectionRows + 1][nr]
  int tokens;                 // of nr
  bool first;                 // the sums begin with it; rows that do not occur become 0
  int rows;                   // 1 to kSectionRows
};

// Sums [cols][tokens] through the epilogue to rows m0 and columns n0 of the output.
struct SparseSums {
  const void* sums;
  int tokens, cols;
  int64_t m0, n0;
  const Epilogue* epilogue;
};

// Few rows by strips [first, last) of a weight in the form of few_rows.h, with the epilogue.
struct SparseFewRows {
  // As few_rows.h lays them out; bytes that a caller may have damaged: any value is safe. The
  // table counts from `values`; kFewSlack bytes can be read from values_end on.
  const int64_t* begins;
  const char *masks, *values, *values_end;
  Dtype type;     // of the values
  const void* x;  // [tokens][ldx] float32, with zeros from K to the end of its last window
  int64_t ldx;
  int64_t windows;  // of k
  int tokens;       // at most kMostFewTokens; row 0 is that of the output
  int64_t first, last;
  int64_t n;  // outputs
  const Epilogue* epilogue;

  // Where the values of a strip begin, or some place from where reading them is safe.
  const char* values_of(int64_t strip) const {
    const int64_t at = begins[strip], most = values_end - values;
    return values + (at >= 0 && at < most ? at : most);
  }
};

struct Int8GemmBlock;

// What multiplies panels of int8 codes (int8_sparse_gemm/panels.h), by tiles of so many rows and
// columns; null: nothing.
struct SparsePanels {
  int quads_mr = 0, quads_nr = 0, windows_mr = 0, windows_nr = 0;
  void (*quads)(const Int8GemmBlock&) = nullptr;
  void (*windows8)(const Int8GemmBlock&) = nullptr;
  void (*windows16)(const Int8GemmBlock&) = nullptr;
};

struct SparseGemmKernel : KernelRow {  // nr: tokens of a tile, kr: entries of one multiplication
  SparseProducts products;
  void (*tokens)(const SparseTokens&);
  void (*multiply)(const SparseSection&);
  void (*finish)(const SparseSums&);
  // few_rows is faster for so few tokens and weights to an entry.
  int few = 0, few_of = 0;
  void (*few_rows)(const SparseFewRows&) = nullptr;
  SparsePanels panels = {};
};

extern KernelTable sparse_gemm_kernels;

// The kernel that is allowed now for weights of that type: rows with bf16 products take bf16 alone.
const SparseGemmKernel& sparse_kernel_for(Dtype type);

#define PYOPS_SPARSE_GEMM_KERNEL(name, isa, test_only, nr, kr, products, few, of) \
  namespace name {                                                                \
  void sparse_tokens(const SparseTokens& task);                                   \
  void sparse_multiply(const SparseSection& task);                                \
  void sparse_finish(const SparseSums& task);                                     \
  void sparse_few_rows(const SparseFewRows& task);                                \
  }
#include "cpu/sparse_gemm/kernels.inc"
#undef PYOPS_SPARSE_GEMM_KERNEL

}  // namespace pyops::cpu
