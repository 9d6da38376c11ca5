// Panels of a sparse weight with output channels in lanes: the dense tile's panels, of which only
// the k are kept that some channel of the panel has an entry for. A tile walks a list of them. The
// bytes are those of sparse_gemm/blocks.h.
#pragma once
#include "cpu/conv_relu/pack.h"

namespace pyops::cpu {

// A tile's values of x side by side, for lists: [k][column], of at least the kernel's pixels. It is
// the vector of every level that has vectors.
inline int64_t conv_column(int mr) { return round_up(mr, 8); }

struct ConvLists {
  ConvHeader header;   // of the dense weight that has these panels
  const char* packed;  // of which panel i of all groups has bytes [begins[i], begins[i + 1])
  const int64_t* begins;

  int64_t segments() const { return header.taps(); }
  // Where the values of a panel begin behind its lists, from their first byte on.
  static int64_t values_at(int64_t segments, int64_t entries) {
    return round_up(4 * segments + 2 * entries, 64);
  }
  int64_t bytes(int64_t panel) const { return begins[panel + 1] - begins[panel]; }

  // Where one of `parts` threads begins, so that all have about as many bytes: a panel costs its
  // entries, and what kPanelBytes of them would.
  int64_t cut(int64_t part, int64_t parts) const {
    constexpr int64_t kPanelBytes = 1024;
    const int64_t panels = conv_parts(header);
    const auto before = [&](int64_t i) {
      return static_cast<double>(begins[i] - begins[0] + i * kPanelBytes);
    };
    const double share = before(panels) * static_cast<double>(part) / static_cast<double>(parts);
    int64_t at = 0;
    while (at < panels && before(at) + before(at + 1) < 2 * share) ++at;
    return part == parts ? panels : at;
  }
};

}  // namespace pyops::cpu
