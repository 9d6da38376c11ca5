// The packed weight.
//
//   byte 0   ConvHeader                                                             64 bytes
//       64   group 0: panel 0 | panel 1 | ...     panel p holds its output channels p * nr ...
//            group 1: ...                       and zeros up to a multiple of 64 bytes
//
//   panel, f32 products    [K][nr] float            K = kh * kw * cg in order of (ky, kx, c)
//          bf16 products   [K / 2][nr][2] bf16      pairs of adjacent k
//
// K is padded to a multiple of kr and a group's channels to a multiple of nr, with zeros.
//
//   depthwise (kr = 0)     [kh * kw][C] float       C padded to a multiple of kConvLanes
//
// Depthwise is one input and one output channel to a group. A bf16 weight is widened where products
// are f32. A weight for Winograd's algorithm has its own panels behind these (winograd.h). Layout
// "plain" (nr = 0), as the pure-torch reference packs it: the weight as given.
#pragma once
#include "cpu/conv_relu/conv_relu.h"

namespace pyops::cpu {

// Channels of a depthwise weight come in multiples of the widest vector.
constexpr int64_t kConvLanes = 16;

enum class ConvAlgorithm : int { direct, winograd };
// What conv_relu_pack leaves to sparse_gemm, whose weights have a header of their own.
constexpr int64_t kSparseAlgorithm = 2;

struct ConvHeader {
  char magic[8];
  int32_t version, nr, kr;
  int32_t type;      // Dtype of the weight: f32 or bf16
  int32_t products;  // ConvProducts of the kernel
  int32_t oc, cg, kh, kw, groups;
  int32_t algorithm;  // ConvAlgorithm
  char pad[12];

  int64_t taps() const { return int64_t{kh} * kw; }
  bool winograd() const { return algorithm != 0; }
  bool depthwise() const { return nr != 0 && kr == 0; }
  int64_t group_oc() const { return oc / groups; }
  int64_t k() const { return taps() * cg; }  // of a group
  int64_t padded_k() const { return depthwise() ? taps() : round_up(k(), kr); }
  int64_t panels() const { return (group_oc() + nr - 1) / nr; }  // of a group
  int64_t element_bytes() const {
    return static_cast<ConvProducts>(products) == ConvProducts::bf16 ? 2 : 4;
  }
  int64_t panel_bytes() const { return padded_k() * nr * element_bytes(); }
};
static_assert(sizeof(ConvHeader) == 64, "pyops/ops/conv_relu_packing.py reads these bytes");

inline bool is_depthwise(int64_t oc, int64_t cg, int64_t groups) {
  return groups > 1 && cg == 1 && oc == groups;
}

// Of the weight [oc][cg][kh][kw] as `kernel` takes it.
ConvHeader conv_header_of(const ConvKernel& kernel, Dtype type, int64_t oc, int64_t cg, int64_t kh,
                          int64_t kw, int64_t groups, ConvAlgorithm algorithm);
// Bytes of the header and the panels of the direct way.
int64_t conv_direct_bytes(const ConvHeader& header);
// Bytes of the packed weight; -1 where the header is damaged.
int64_t conv_bytes(const ConvHeader& header);
// Null, or what is wrong with the bytes: no header, another version, another length.
const char* conv_problem(const void* packed, int64_t bytes);

inline const ConvHeader& conv_header(const void* packed) {
  return *static_cast<const ConvHeader*>(packed);
}
// Panel `panel` of a group; of a depthwise weight the only one.
inline const char* conv_panel(const void* packed, int64_t group, int64_t panel) {
  const ConvHeader& h = conv_header(packed);
  return static_cast<const char*>(packed) + 64 + (group * h.panels() + panel) * h.panel_bytes();
}

// Parts that threads can pack on their own: panels of all groups, 1 of a depthwise weight.
int64_t conv_parts(const ConvHeader& header);
// `packed` has its header; w is the weight, [oc][cg][kh][kw], of the header's type.
void pack_conv(void* packed, const void* w, int64_t first, int64_t last);
void unpack_conv(const void* packed, void* w);

}  // namespace pyops::cpu
