// The int8 product and the quantizer, as every kernel file implements them.
//
//   acc[m][n] = sum_k a[m][k] * w[n][k]        a: 8-bit codes   w: int8   acc: int32, exact
//
// followed by the epilogue of common/epilogue.h. One call does one block: at most kBlockRows rows
// and one panel of w.
#pragma once
#include "cpu/common/epilogue.h"
#include "cpu/common/norm.h"
#include "cpu/isa.h"

namespace pyops::cpu {

// How a kernel wants the codes of a. From int8 codes q: s8 is q, u8 is q + 128, s16 is q widened;
// from uint8 codes: s8 is q - 128, u8 is q, s16 is q widened. The epilogue's zero_shift undoes it.
// u8x4 holds each group of four u8 codes as the 16 bytes of cut.h.
enum class Codes : int { s8, u8, s16, u8x4 };
constexpr int64_t code_bytes(Codes codes) {
  return codes == Codes::u8x4 ? 4 : codes == Codes::s16 ? 2 : 1;
}
constexpr bool is_u8(Codes codes) { return codes == Codes::u8 || codes == Codes::u8x4; }

// 65536 products of at most 255 * 128 stay below 2^31, so no int32 sum can overflow.
constexpr int64_t kMaxK = 65536;
// Depth to which rows of a are padded with zero codes; all kr divide it.
constexpr int64_t kDepthStep = 64;
// Most rows of a block: all panels pass them before the next ones, so that their part of the output
// stays within reach of the TLB. A multiple of every mr.
constexpr int64_t kBlockRows = 96;
// Bytes behind the last panel that a kernel may read (and ignore): two 64-byte vectors from any
// column of the last group on.
constexpr int64_t kPackSlack = 128;

// What a cut leaves of one weight: w[n][k] = the weight multiplied by the kernel + value (cut.h).
struct Excess {
  uint16_t k;
  uint8_t col;  // in its panel
  int8_t value;
};
static_assert(sizeof(Excess) == 4, "pack.h counts these bytes");

// Rows of a that are the pixels of a convolution's output, and its taps. Pixels stand in a strip of
// the input at the places
//
//   place(r) = (x0 + r) / width * pitch + (x0 + r) % width - x0
//
// and codes [t * depth, (t + 1) * depth) of row r begin at a + place(r) * lda_bytes + at[t].
struct Taps {
  int64_t width, pitch, x0;
  int64_t count, depth;
  const int64_t* at;

  int64_t place(int64_t r) const { return (x0 + r) / width * pitch + (x0 + r) % width - x0; }
  // The most rows with places below `places`, which is at least 1.
  int64_t rows_within(int64_t places) const {
    const int64_t last = x0 + places - 1;  // pitch is at least width
    return last / pitch * width + min64(last % pitch, width - 1) - x0 + 1;
  }
};

struct Int8GemmBlock {
  const void* a;  // rows x lda_bytes, padded to kDepthStep codes
  Codes codes;    // what form_of says of them
  int64_t lda_bytes;
  const int8_t* w;           // [k / kr][stored_cols][kr], zero padded in k (pack.h)
  int stored_cols;           // columns from one group of kr to the next
  int64_t k;                 // a multiple of kr
  int rows, cols;            // 0 < rows <= kBlockRows, 0 < cols <= nr
  int64_t n0;                // column of the matrix that column 0 of this block is
  const Epilogue* epilogue;  // its rows count from the first row of this block
  // Of the blocks with these rows of a that this thread runs one after the other: only between
  // them does a kernel keep a state of the CPU.
  bool first = true, last = true;
  // Of a cut panel (cut.h): what its sums start from, the windows of a that it multiplies, and
  // what was cut away, in order of k. Bytes that a caller may have damaged: any value is safe.
  const int32_t* start = nullptr;
  const uint8_t* windows = nullptr;
  const Excess *excess = nullptr, *excess_end = nullptr;
  const Taps* taps = nullptr;  // for kernels with tap_depth; k = taps->count * taps->depth
  // Of a sparse panel (int8_sparse_gemm/panels.h), whose w has so many steps: how many there are of
  // each tap, and for which four k. Bytes that a caller may have damaged: any value of `at` is
  // safe.
  int64_t steps = 0, step_bytes = 0;
  const uint32_t* counts = nullptr;
  const uint16_t* at = nullptr;
  // Blocks of sparse panels, of the same rows of a, that stand in an array from here.
  int panels = 1;
};

// One row of float32, bfloat16 or float16:
//
//   symmetric:  scale = max(absmax / 127, tiny), q = rne(x * (1 / scale)),  codes as of int8 q
//   otherwise:  scale = max(max / 255 - min / 255, tiny) over a range that holds 0,
//               zero = rne(-min * (1 / scale)),  q = clamp(rne(x * (1 / scale)) + zero, 0, 255)
//
// A row of zeros gets scale 1. A row with NaN or Inf gets scale NaN, and codes of 0.
struct QuantizeRow {
  const void* x;
  Dtype x_type;
  int64_t k;
  int64_t k_padded;  // codes from k on are written as 0 (u8x4: as strings of 0)
  bool symmetric;
  Codes codes;
  void* q;
  float* scale;
  int32_t* zero_point;  // of the codes as written; may be null when symmetric
};

struct Int8GemmKernel : KernelRow {
  int mr;  // rows of a tile: a good divisor when rows are split over threads
  Codes codes;
  bool either;    // multiplies u8 codes of a as well as its own
  int tap_depth;  // of which the depth of taps has to be a multiple; 0: takes none
  void (*block)(const Int8GemmBlock&);
  void (*quantize_row)(const QuantizeRow&);
  void (*norm_row)(const NormRow&);
  bool sparse = false;  // its blocks are of sparse panels

  // The form in which it takes int8 or uint8 codes.
  Codes form_of(bool is_signed) const { return either && !is_signed ? Codes::u8 : codes; }
};

// What form_of adds to the codes that it is made of; the epilogue takes it from their zero point.
inline int32_t shift_of(Codes form, bool is_signed) {
  if (is_signed) return is_u8(form) ? 128 : 0;
  return form == Codes::s8 ? -128 : 0;
}

extern KernelTable int8_gemm_kernels;

#define PYOPS_INT8_GEMM_KERNEL(name, isa, test_only, mr, nr, kr, min_m, codes, either, tap_depth) \
  namespace name {                                                                                \
  void int8_gemm_block(const Int8GemmBlock& block);                                               \
  void quantize_row(const QuantizeRow& row);                                                      \
  void norm_row(const NormRow& row);                                                              \
  }
#include "cpu/int8_gemm/kernels.inc"
#undef PYOPS_INT8_GEMM_KERNEL

}  // namespace pyops::cpu
