// The packed convolution weight w[oc][c][ky][kx], c < channels / groups.
//
//   byte 0      Int8ConvHeader                                                       64 bytes
//        64     at[groups + 1], int64, padded to 64 bytes: where each group begins, and the end
//               group 0 | group 1 | ...
//
// A group is the int8_gemm weight (int8_gemm/pack.h) of its output channels as rows of
// K = kh * kw * c codes in the order ky, kx, c, padded to 64 bytes: the order in which NHWC pixels
// lie under the taps. With as many groups as channels and one output channel in each, layout
// "depthwise", the header is followed by what depthwise.h draws. Layout "plain", as the pure-torch
// reference packs it, is the weight as given right behind the header.
#pragma once
#include <torch/csrc/stable/tensor.h>

#include "cpu/int8_gemm/pack.h"

namespace pyops::cpu {

enum class Int8ConvLayout : int32_t { plain = 0, groups = 1, depthwise = 2 };

struct Int8ConvHeader {
  char magic[8];
  int32_t version;
  Int8ConvLayout layout;
  int64_t oc, c;  // c: channels of a group
  int64_t kh, kw;
  int64_t groups;
  char pad[8];

  int64_t depth() const { return kh * kw * c; }
  int64_t group_oc() const { return oc / groups; }
  bool is_depthwise() const { return c == 1 && oc == groups; }
};
static_assert(sizeof(Int8ConvHeader) == 64, "pyops/ops/int8_conv_packing.py reads these bytes");

inline const Int8ConvHeader& int8_conv_header(const void* packed) {
  return *static_cast<const Int8ConvHeader*>(packed);
}
inline const void* int8_conv_body(const void* packed) {
  return static_cast<const char*>(packed) + 64;
}
inline const int64_t* int8_conv_groups_at(const void* packed) {
  return reinterpret_cast<const int64_t*>(static_cast<const char*>(packed) + 64);
}
inline const void* int8_conv_group(const void* packed, int64_t group) {
  return static_cast<const char*>(packed) + int8_conv_groups_at(packed)[group];
}

// Null, or what is wrong with the bytes: no header, another version, another length.
const char* int8_conv_problem(const void* packed, int64_t bytes);

torch::stable::Tensor pack_int8_conv(const int8_t* w, const Int8ConvHeader& shape);
void unpack_int8_conv(const void* packed, int8_t* w);

}  // namespace pyops::cpu
