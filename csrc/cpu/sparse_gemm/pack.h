// The packed weight.
//
//   byte 0   SparseHeader                                                             64 bytes
//       64   int64 begin[parts + 1]: where each section begins, and the last one ends
//            of an int8 weight: int32 w_sum[oc] = sum over k of w[oc][k], up to a multiple of 8
//            sections: [group][block of kc values of k][kSectionRows outputs of the group]
//            zeros up to a multiple of 64 bytes
//            where the header says so, a second form for few tokens (few_rows.h)
//
//   section  SparseCounts
//            runs of two outputs:   SparsePair, then its items      two entries of either output
//            runs of four outputs:  SparseQuad, then its items      one entry of each output
//
// and of an int8 weight, whose multiplications take four entries each, items of four; of a bf16
// weight on a level with products of pairs, items of two of each output.
//
// An item's `at` is where x[k] begins in a block of x: (k - k0) * row_bytes(). Outputs of a pair
// have about the same number of entries; what is missing has weight 0 and points to row kc of the
// block, which is zero. Four adjacent outputs become a quad where they share most of their k; what
// one of them lacks has weight 0. In the first block of k all outputs occur, in the others those
// that have entries.
//
// K runs over taps and channels in order of (ky, kx, c). Only what is not 0 is an entry.
#pragma once
#include <cstring>

#include "cpu/sparse_gemm/sparse_gemm.h"

namespace pyops::cpu {

constexpr char kSparseMagic[8] = {'p', 'y', 'o', 'p', 's', 'S', 'P', '\0'};

// What sections hold: what is drawn above, or panels of int8_sparse_gemm/panels.h.
enum class SparseForm : int16_t { entries, quads, windows8, windows16 };

struct SparseHeader {
  char magic[8];
  int32_t version, nr, kr;
  int32_t type;      // Dtype of the weight: f32 or bf16; s8
  int32_t products;  // SparseProducts of the kernel
  int32_t oc, cg, kh, kw, groups;
  int32_t kc;   // values of k in a block; 0: panels take the place of sections (blocks.h)
  int16_t few;  // 1: the form of few_rows.h follows the sections
  SparseForm form;
  int64_t bytes;  // of all

  int64_t taps() const { return int64_t{kh} * kw; }
  int64_t k() const { return taps() * cg; }
  int64_t group_oc() const { return oc / groups; }
  bool of_float_panels() const { return kc == 0; }
  int64_t section_rows() const { return of_float_panels() ? nr : kSectionRows; }
  int64_t sections() const { return (group_oc() + section_rows() - 1) / section_rows(); }
  int64_t blocks() const { return of_float_panels() ? 1 : (k() + kc - 1) / kc; }
  int64_t parts() const { return groups * blocks() * sections(); }
  bool of_codes() const { return products == static_cast<int32_t>(SparseProducts::s32); }
  bool of_pairs() const { return products == static_cast<int32_t>(SparseProducts::bf16); }
  bool of_code_panels() const { return form != SparseForm::entries; }
  // Of one value of k in a block of x: codes are widened where two entries make a multiplication.
  int64_t row_bytes() const {
    return int64_t{nr} * (of_codes() ? (kr == 2 ? 2 : 1) : of_pairs() ? 2 : 4);
  }
  int64_t sums_at() const { return 64 + 8 * (parts() + 1); }
  int64_t sections_at() const {
    if (of_float_panels()) return round_up(sums_at(), 64);
    const int64_t at = sums_at() + (of_codes() ? round_up(4 * int64_t{oc}, 8) : 0);
    return of_code_panels() ? round_up(at, 64) : at;
  }
};
static_assert(sizeof(SparseHeader) == 64, "pyops/ops/int8_sparse_packing.py reads these bytes");

struct SparseCounts {
  uint32_t pairs, quads;
};
struct SparsePair {
  uint16_t rows[2];
  uint32_t items;
};
struct SparsePairItem {
  uint16_t at[4];  // of outputs 0, 1, 0, 1
  float w[4];
};
struct SparseQuad {
  uint16_t rows[4];
  uint32_t items;
};
struct SparseQuadItem {
  uint16_t at[1], has;  // bit i: output i has this entry, and not only a 0 in its place
  float w[4];
};
// Of codes.
struct Int8PairItem {
  uint16_t at[8];  // four of output 0, four of output 1
  int8_t w[8];
};
struct Int8QuadItem {
  uint16_t at[4];
  int8_t w[16];  // four of each output
};
// Of bf16 products.
struct Bf16PairItem {
  uint16_t at[4];  // two of output 0, two of output 1
  uint16_t w[4];
};
struct Bf16QuadItem {
  uint16_t at[2], has;  // bit 2 * i + j: output i has entry j, and not only a 0 in its place
  uint16_t w[8];        // two of each output
};

// A weight [oc][cg][kh][kw] as `kernel` takes it: the header, all but its length.
SparseHeader sparse_header_of(const SparseGemmKernel& kernel, Dtype type, const int64_t* shape,
                              int64_t groups);
// Null, or what is wrong with the bytes: no header, another version, another length.
const char* sparse_problem(const void* packed, int64_t bytes);
// Whether the bytes, which are those of any packed weight, begin as a sparse one.
inline bool is_sparse(const void* packed, int64_t bytes) {
  return bytes >= 64 && std::memcmp(packed, kSparseMagic, sizeof kSparseMagic) == 0;
}

inline bool is_sparse(const void* packed) { return is_sparse(packed, 64); }

inline const SparseHeader& sparse_header(const void* packed) {
  return *static_cast<const SparseHeader*>(packed);
}
inline const int64_t* sparse_begins(const void* packed) {
  return reinterpret_cast<const int64_t*>(static_cast<const char*>(packed) + 64);
}
// Of an int8 weight.
inline const int32_t* sparse_sums(const void* packed) {
  const int64_t at = sparse_header(packed).sums_at();
  return reinterpret_cast<const int32_t*>(static_cast<const char*>(packed) + at);
}
inline int64_t sparse_part(const SparseHeader& h, int64_t group, int64_t block, int64_t section) {
  return (group * h.blocks() + block) * h.sections() + section;
}

// For an int8 weight: its w_sum.
void sum_weights(const SparseHeader& header, const int8_t* w, int32_t* sums);
// Writes one section of a weight [oc][cg][kh][kw] of the header's type; null: counts. Returns how
// many bytes it takes.
int64_t pack_section(const SparseHeader& header, const void* w, int64_t part, char* out);

// A weight in memory: entry (row of all groups, k) stands at row * row_step + place of k.
struct SparseMatrix {
  void* data;
  Dtype type;
  int64_t row_step, k_step;  // elements; k_step counts where there is one tap

  int64_t place(const SparseHeader& h, int64_t row, int64_t k) const {
    const int64_t taps = h.taps();
    return row * row_step + (taps == 1 ? k * k_step : k % h.cg * taps + k / h.cg);
  }
};

// Writes the entries of parts [first, last) to the matrix; the rest of it is left as it is.
void unpack_sparse(const void* packed, int64_t first, int64_t last, const SparseMatrix& to);
// Gives the entries of parts [first, last) the values that they have in the matrix.
void refresh_sparse(void* packed, int64_t first, int64_t last, const SparseMatrix& from);

}  // namespace pyops::cpu
