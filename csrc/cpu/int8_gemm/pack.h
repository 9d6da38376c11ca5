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
#pragma once
#include "cpu/int8_gemm/int8_gemm.h"

namespace pyops::cpu {

struct PackedHeader {
  char magic[8];
  int32_t version, nr, kr, reserved;
  int64_t n, k;
  char pad[24];
};
static_assert(sizeof(PackedHeader) == 64, "pyops/ops/packing.py reads these bytes");

inline int64_t packed_sums_bytes(int64_t n) { return round_up(4 * n, 64); }
inline int64_t packed_depth(int64_t k, int kr) { return round_up(k, kr); }
inline int64_t packed_bytes(int64_t n, int64_t k, int nr, int kr) {
  if (nr == 0) return 64 + n * k;
  return round_up(64 + packed_sums_bytes(n) + n * packed_depth(k, kr) + kPackSlack, 64);
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
  return static_cast<const int8_t*>(packed) + 64 + packed_sums_bytes(h.n) +
         n0 * packed_depth(h.k, h.kr);
}

// Writes the header, the padding of the sums and the slack; then pack_panels, from any threads,
// writes panels [first, last) with their sums.
void pack_header(void* packed, int64_t n, int64_t k, int nr, int kr);
void pack_panels(void* packed, const int8_t* w, int64_t first, int64_t last);
void unpack(const void* packed, int8_t* w);

// Rows of int8 or uint8 codes (`is_signed`) in the form a kernel wants, padded with 0 to k_padded.
void prepare_codes(const void* a, bool is_signed, int64_t lda, int64_t rows, int64_t k, Codes codes,
                   void* out, int64_t k_padded);

}  // namespace pyops::cpu
