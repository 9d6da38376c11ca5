// The packed weight: codes, and for int4 their scales and zero points, in the order in which
// kernels read them, so that a product is one stream through memory.
//
//   byte 0      WeightHeader                                                     64 bytes
//        64     panel 0 | panel 1 | ... , panel p holds columns p * nr ... of w
//               at least kWeightSlack zero bytes, up to a multiple of 64
//
//   int8 panel:  [K][cols]                 one byte each; cols = nr, or what is left at the end
//
//   int4 panel:  group 0 | group 1 | ...   of `group` values of k, the last one what is left
//     group:     words  [ceil(depth / 8)][cols] uint32, bits 4 i ... of a word: the code at k + i
//                scale  [cols] float
//                zero   [cols] int8, padded to 4 bytes; only with zero points
//
// An int4 code is stored as the two's complement of q, or of q - 8 with zero points; so are those:
// zero - 8. K is padded with code 0; columns are not padded. Layout "plain" (nr = 0), as the
// pure-torch reference packs it, is behind the header
//   int8   the row-major codes
//   int4   scale [N][groups] float, codes [N][ceil(K / 2)] two to a byte, the lower half first,
//          zero [N][groups], all as given: codes and zeros are q and zero, not less 8
#pragma once
#include "cpu/weight_only/weight_only.h"

namespace pyops::cpu {

struct WeightHeader {
  char magic[8];
  int32_t version, nr, bits, group;
  int64_t n, k;
  int32_t zeros;
  char pad[20];
};
static_assert(sizeof(WeightHeader) == 64, "pyops/ops/weight_only_packing.py reads these bytes");

inline WeightFormat format_of(const WeightHeader& h) { return {h.bits, h.group, h.zeros == 1}; }

inline int64_t group_count(int64_t k, int group) { return group ? (k + group - 1) / group : 0; }

// Of one panel's group: where its parts begin, from the group's first byte.
struct GroupParts {
  int64_t scale, zero, bytes;
};
inline GroupParts group_parts(int64_t depth, int64_t cols, bool zeros) {
  const int64_t scale = (depth + 7) / 8 * cols * 4, zero = scale + cols * 4;
  return {scale, zero, zero + (zeros ? round_up(cols, 4) : 0)};
}

inline int64_t panel_bytes(int64_t cols, int64_t k, const WeightFormat& f) {
  if (f.bits == 8) return cols * k;
  const int64_t whole = k / f.group, rest = k % f.group;
  const int64_t last = rest ? group_parts(rest, cols, f.zeros).bytes : 0;
  return whole * group_parts(f.group, cols, f.zeros).bytes + last;
}

inline int64_t weight_bytes(int64_t n, int64_t k, int nr, const WeightFormat& f) {
  if (nr == 0) {
    if (f.bits == 8) return 64 + n * k;
    return 64 + n * (group_count(k, f.group) * (f.zeros ? 5 : 4) + (k + 1) / 2);
  }
  const int64_t panels = n / nr * panel_bytes(nr, k, f) + panel_bytes(n % nr, k, f);
  return round_up(64 + panels + kWeightSlack, 64);
}

// Null, or what is wrong with the bytes: no header, another version, another length.
const char* weight_problem(const void* packed, int64_t bytes);
inline const WeightHeader& weight_header(const void* packed) {
  return *static_cast<const WeightHeader*>(packed);
}
// The panel that starts at column n0, a multiple of nr.
inline const uint8_t* weight_panel(const void* packed, int64_t n0) {
  const WeightHeader& h = weight_header(packed);
  return static_cast<const uint8_t*>(packed) + 64 +
         n0 / h.nr * panel_bytes(h.nr, h.k, format_of(h));
}

// What is packed, row-major: int8 or int4 codes one to a byte, and for int4 [n][groups] scales and
// zero points (null without). Codes with zero points are 0..15, without -8..7.
struct PlainWeight {
  int8_t* codes;
  float* scale;
  uint8_t* zero;
};

// Writes the header and zero bytes; then pack_weight, from any threads, panels [first, last).
void weight_header(void* packed, int64_t n, int64_t k, int nr, const WeightFormat& format);
void pack_weight(void* packed, const PlainWeight& w, int64_t first, int64_t last);
void unpack_weight(const void* packed, const PlainWeight& w);

}  // namespace pyops::cpu
