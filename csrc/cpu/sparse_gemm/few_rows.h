// The second form of a packed matrix: for products of few rows, which read a weight faster than
// they multiply with it, and would leave most lanes of a tile of tokens empty. Values of k are in
// lanes instead: a bit for each weight says whether it is an entry, and one instruction spreads
// the entries' values, which lie next to one another, over the lanes of the bits.
//
//   first    int64 begin[strips + 1]: where the values of each strip of 4 outputs begin, from the
//            values of the first one on, and the last ones end
//            masks [strip][window of 16 k][4 outputs] uint16: bit i is k = 16 * window + i;
//            of an int8 weight windows have 64 k, and masks are uint64
//            values, of the weight's type: [strip][window][output][entry]
//            at least kFewSlack zero bytes, up to a multiple of 64
//
// `first` is the end of the sections (pack.h), rounded up to 64 bytes. A matrix has this form as
// well where it has few_rows_pay, which costs 1/8 byte for each weight and its size for each entry.
#pragma once
#include "cpu/sparse_gemm/pack.h"

namespace pyops::cpu {

constexpr int kFewStrip = 4, kFewWindow = 16, kFewCodesWindow = 64;
inline int64_t few_window(const SparseHeader& h) {
  return h.of_codes() ? kFewCodesWindow : kFewWindow;
}
// What a kernel may read behind the last value: the vectors of four rows that have no entries.
constexpr int64_t kFewSlack = 256;

// Where the parts are, from byte 0 of the packed weight.
struct FewLayout {
  int64_t strips, window, windows;
  int64_t begins, masks, values;

  explicit FewLayout(const SparseHeader& h, int64_t first)
      : strips((h.oc + kFewStrip - 1) / kFewStrip),
        window(few_window(h)),
        windows((h.k() + window - 1) / window),
        begins(first),
        masks(first + 8 * (strips + 1)),
        values(masks + strips * mask_bytes()) {}

  int64_t mask_bytes() const { return windows * kFewStrip * window / 8; }  // of a strip
  int64_t bytes(int64_t value_bytes) const {
    return round_up(values + value_bytes + kFewSlack, 64);
  }
  int64_t value_bytes(const SparseHeader& h) const { return h.bytes - kFewSlack - values; }
};
inline FewLayout few_layout(const void* packed) {
  const SparseHeader& h = sparse_header(packed);
  return FewLayout(h, round_up(sparse_begins(packed)[h.parts()], 64));
}

// Whether a weight may have the form, and whether it does with so many entries. Smaller weights are
// multiplied faster than a call takes; where hardly any weight is an entry, the bits alone take
// longer than tiles of tokens do.
inline bool few_rows_possible(const SparseHeader& h) {
  return h.taps() == 1 && h.groups == 1 && h.oc * h.k() >= 1 << 14;
}
inline bool few_rows_pay(const SparseGemmKernel& kernel, const SparseHeader& h, int64_t entries) {
  return few_rows_possible(h) && entries * kernel.few_of >= h.oc * h.k();
}

// Of a weight [oc][k] of the header's type: writes a strip's masks and values; null: counts.
// Returns how many bytes the values take.
int64_t pack_few(const SparseHeader& header, const void* w, int64_t strip, char* masks,
                 char* values);
// Null, or what is wrong with a packed weight whose header and sections are in order.
const char* few_problem(const void* packed, int64_t bytes);
// Gives the entries of strips [first, last) the values that they have in the matrix.
void refresh_few(void* packed, int64_t first, int64_t last, const SparseMatrix& from);

}  // namespace pyops::cpu
