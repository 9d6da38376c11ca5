// The packed mask: the places that it keeps, in the order in which kernels walk them. It is the
// same for all kernels.
//
//   byte 0       MaskedHeader                                                     64 bytes
//        64      first  [sections + 1] int64: the quads before each section; the last one: all
//                rows   section 0 | section 1 | ... , each [its rows] of MaskedRow
//                depths section 0 | section 1 | ... , each [quads][kQuad] bytes
//                zeros, up to a multiple of 64 bytes
//
//   mask [n][k]:        k ->   0        128       256
//                       n 0    section 0 | section 2 |      down first: all sections of 128 columns
//                         256  section 1 | section 3 |      share their x
//
// Rows of a section are sorted by their number of quads, so that the loop over them is foreseen.
// Layout "plain" (sections = 0), as the pure-torch reference packs it, is behind the header the
// mask as n x k bytes, 0 or 1.
#pragma once
#include "cpu/masked_matmul/masked_matmul.h"

namespace pyops::cpu {

struct MaskedHeader {
  char magic[8];
  int32_t version, sections;  // 1, or 0 for plain
  int64_t n, k, quads;
  char pad[24];
};
static_assert(sizeof(MaskedHeader) == 64, "pyops/ops/masked_matmul_packing.py reads these bytes");

// Where section s of an n x k mask is.
struct MaskedPlace {
  int64_t row, rows, col, cols;
};
inline int64_t masked_row_blocks(int64_t n) { return (n + kMaskedRows - 1) / kMaskedRows; }
inline int64_t masked_col_blocks(int64_t k) { return (k + kMaskedDepth - 1) / kMaskedDepth; }
inline int64_t masked_sections(int64_t n, int64_t k) {
  return masked_row_blocks(n) * masked_col_blocks(k);
}
inline MaskedPlace masked_place(int64_t n, int64_t k, int64_t s) {
  const int64_t row = s % masked_row_blocks(n) * kMaskedRows;
  const int64_t col = s / masked_row_blocks(n) * kMaskedDepth;
  return {row, min64(kMaskedRows, n - row), col, min64(kMaskedDepth, k - col)};
}

inline int64_t masked_bytes(int64_t n, int64_t k, int64_t quads) {
  const int64_t rows = masked_col_blocks(k) * n * static_cast<int64_t>(sizeof(MaskedRow));
  return round_up(64 + 8 * (masked_sections(n, k) + 1) + rows + kQuad * quads, 64);
}

inline const MaskedHeader& masked_header(const void* packed) {
  return *static_cast<const MaskedHeader*>(packed);
}
// Null, or what is wrong with the bytes: no header, another version, another length.
const char* masked_problem(const void* packed, int64_t bytes);
MaskedSection masked_section(const void* packed, int64_t s);
// Whether the section has each of its rows once, all columns lie in it, and rows have all its
// quads.
bool masked_section_fits(const MaskedSection& section);

// A mask [n][k] of bytes, 0 or not, is packed in three steps: quads of each row in each block of
// columns, [column blocks][n], rows [begin, end) from any thread; the header and `first`; sections
// [begin, end) from any thread.
void count_masked_quads(const uint8_t* mask, int64_t n, int64_t k, int64_t begin, int64_t end,
                        uint8_t* quads);
int64_t sum_masked_quads(const uint8_t* quads, int64_t n, int64_t k);
void write_masked_header(const uint8_t* quads, int64_t n, int64_t k, void* packed);
void pack_masked(const uint8_t* mask, const uint8_t* quads, int64_t begin, int64_t end,
                 void* packed);
// mask: [n][k], of bytes 0 or 1. The sections have to fit.
void unpack_masked(const void* packed, uint8_t* mask);

}  // namespace pyops::cpu
