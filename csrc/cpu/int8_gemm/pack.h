// The packed weight: everything that depends on w alone, in the order in which kernels read it.
//
//   byte 0      PackedHeader                                                     64 bytes
//        64     w_sum[n] = sum_k w[n][k], int32, padded to 64 bytes
//               panel 0 | panel 1 | ... , panel p holds columns p * nr ... of w
//               at least kPackSlack zero bytes, up to a multiple of 64
//
//   panel:  [ceil(K / kr)][cols][kr]     cols = nr, or what is left for the last panel
//
//             k 0..kr-1     kr..2kr-1
//     col 0   w[0][0..kr-1] |
//     col 1   w[1][0..kr-1] |  ...          one row of this picture is what one vector
//     ...                                   instruction multiplies with kr codes of a
//
// K is padded with zeros to a multiple of kr; columns are not padded. Layout "plain" (nr = kr = 0)
// is the row-major weight right behind the header, as the pure-torch reference packs it.
//
// A cut layout (cut.h) has more, each part padded to 64 bytes: behind w_sum
//               start[n], int32: what the sum of column n starts from
// and at the end, behind the zero bytes,
//               windows: per panel, half a byte for each 4 k, the lower half first
//               first[panel], int32, and one more: where a panel's part of the next begins
//               Excess, in order of panel and k
#pragma once
#include "cpu/int8_gemm/int8_gemm.h"

namespace pyops::cpu {

struct PackedHeader {
  char magic[8];
  int32_t version, nr, kr, cut;
  int64_t n, k;
  int64_t excess;  // how many Excess
  char pad[16];
};
static_assert(sizeof(PackedHeader) == 64, "pyops/ops/packing.py reads these bytes");

struct PackedLayout {
  int nr, kr;
  bool cut;
};
inline PackedLayout layout_of(const KernelRow& row) { return {row.nr, row.kr, row.cut}; }

inline int64_t packed_sums_bytes(int64_t n) { return round_up(4 * n, 64); }
inline int64_t packed_depth(int64_t k, int kr) { return round_up(k, kr); }
inline int64_t packed_panels(int64_t n, int nr) { return (n + nr - 1) / nr; }
// Of one panel: half a byte for each 4 k.
inline int64_t window_bytes(int64_t k) { return (k + 7) / 8; }
inline int64_t packed_panels_at(int64_t n, bool cut) {
  return 64 + (cut ? 2 : 1) * packed_sums_bytes(n);
}
inline int64_t packed_panels_end(int64_t n, int64_t k, const PackedLayout& layout) {
  const int64_t at = packed_panels_at(n, layout.cut);
  return round_up(at + n * packed_depth(k, layout.kr) + kPackSlack, 64);
}
inline int64_t packed_bytes(int64_t n, int64_t k, const PackedLayout& layout, int64_t excess = 0) {
  if (layout.nr == 0) return 64 + n * k;
  const int64_t end = packed_panels_end(n, k, layout), panels = packed_panels(n, layout.nr);
  if (!layout.cut) return end;
  return end + round_up(panels * window_bytes(k), 64) + round_up(4 * (panels + 1), 64) +
         round_up(4 * excess, 64);
}

// An Excess costs a row about as much as 50 products do, so the most that are allowed cost the
// fifth that a cut kernel is faster than the next one. And a layer of 256 x 256 with its scales has
// to stay below 0.27 of its size in floats.
inline bool cut_pays(int64_t n, int64_t k, const PackedLayout& layout, int64_t excess) {
  return excess <= n * k / 256 && 16 * packed_bytes(n, k, layout, excess) <= 17 * n * k;
}

// Null, or what is wrong with the bytes: no header, another version, another length.
const char* packed_problem(const void* packed, int64_t bytes);
inline const PackedHeader& packed_header(const void* packed) {
  return *static_cast<const PackedHeader*>(packed);
}
inline const int32_t* packed_sums(const void* packed) {
  return reinterpret_cast<const int32_t*>(static_cast<const char*>(packed) + 64);
}
// The panel that starts at column n0, a multiple of nr.
inline const int8_t* packed_panel(const void* packed, int64_t n0) {
  const PackedHeader& h = packed_header(packed);
  return static_cast<const int8_t*>(packed) + packed_panels_at(h.n, h.cut) +
         n0 * packed_depth(h.k, h.kr);
}

// The parts of a cut layout. first[] may be damaged: excess_at() stays inside.
struct PackedCut {
  const int32_t* start;
  const uint8_t* windows;
  const int32_t* first;
  const Excess* excess;
  int64_t count;

  const Excess* excess_at(int64_t panel) const {
    return excess + (first[panel] < 0 ? 0 : min64(first[panel], count));
  }
};
inline PackedCut packed_cut(const void* packed) {
  const PackedHeader& h = packed_header(packed);
  const char* bytes = static_cast<const char*>(packed);
  const char* windows = bytes + packed_panels_end(h.n, h.k, {h.nr, h.kr, true});
  const char* first = windows + round_up(packed_panels(h.n, h.nr) * window_bytes(h.k), 64);
  const char* excess = first + round_up(4 * (packed_panels(h.n, h.nr) + 1), 64);
  return {reinterpret_cast<const int32_t*>(bytes + 64 + packed_sums_bytes(h.n)),
          reinterpret_cast<const uint8_t*>(windows), reinterpret_cast<const int32_t*>(first),
          reinterpret_cast<const Excess*>(excess), h.excess};
}

// Lets a block that starts at column 0 of a panel see the panel's part of the cut.
inline void add_cut(Int8GemmBlock* block, const PackedCut& cut, int64_t panel, int64_t k,
                    int64_t n0) {
  block->start = cut.start + n0;
  block->windows = cut.windows + panel * window_bytes(k);
  block->excess = cut.excess_at(panel);
  block->excess_end = cut.excess_at(panel + 1);
}

// For a cut layout: how many Excess each of panels [first, last) leaves.
void count_cuts(const int8_t* w, int64_t n, int64_t k, int nr, int64_t first, int64_t last,
                int32_t* counts);
// Writes the header and zeros; for a cut layout `first_excess`, sums of count_cuts, too. Then
// pack_panels, from any threads, writes panels [first, last) with what belongs to them.
void pack_header(void* packed, int64_t n, int64_t k, const PackedLayout& layout,
                 const int32_t* first_excess = nullptr);
void pack_panels(void* packed, const int8_t* w, int64_t first, int64_t last);
void unpack(const void* packed, int8_t* w);

// Rows of int8 or uint8 codes (`is_signed`) in the form a kernel wants, padded with 0 to k_padded.
void prepare_codes(const void* a, bool is_signed, int64_t lda, int64_t rows, int64_t k, Codes codes,
                   void* out, int64_t k_padded);

}  // namespace pyops::cpu
