#include "cpu/sparse_gemm/blocks.h"

#include <cstring>

#include "cpu/common/half.h"

namespace pyops::cpu {
namespace {

constexpr int kMostOutputs = 64;          // of a panel: a bit each
constexpr int64_t kMostPlaces = 1 << 16;  // of a tap
// What token lanes take (pyops/ops/sparse_cost.py says of what).
struct LaneCosts {
  double entry, quad, value;
  int64_t depth;
};
constexpr LaneCosts kFloatLanes = {3.4, 10.0, 7.0, 192}, kPairLanes = {2.2, 4.9, 4.0, 384};
constexpr double kOutput = 14.0, kBlock = 12.0;
// A k, or a pair of them, of an output, where two multiplications a cycle bound the tile, and where
// its loads do.
constexpr double kWide = 2.27, kNarrow = 2.6;

// Outputs of a panel, from the group's first on.
struct Panel {
  int64_t row, rows;  // row: of all groups

  Panel(const SparseHeader& h, int64_t nr, int64_t part) {
    const int64_t panels = (h.group_oc() + nr - 1) / nr, first = part % panels * nr;
    row = part / panels * h.group_oc() + first;
    rows = min64(nr, h.group_oc() - first);
  }
};

int64_t element_bytes(const SparseHeader& h) { return h.of_pairs() ? 2 : 4; }
int64_t places(const SparseHeader& h) { return (int64_t{h.cg} + h.kr - 1) / h.kr; }  // of a tap

bool is_entry(const void* w, bool small, int64_t at) {
  if (small) return (static_cast<const uint16_t*>(w)[at] & 0x7fff) != 0;
  return (static_cast<const uint32_t*>(w)[at] << 1) != 0;
}

// Of each place of all taps, which outputs of a panel have an entry there.
std::vector<uint64_t> outputs_at(const SparseHeader& h, const void* w, const Panel& panel) {
  const int64_t taps = h.taps(), depth = places(h);
  const bool small = static_cast<Dtype>(h.type) == Dtype::bf16;
  std::vector<uint64_t> found(static_cast<size_t>(taps * depth));
  for (int64_t row = 0; row < panel.rows; ++row) {
    const int64_t from = (panel.row + row) * h.k();
    for (int64_t c = 0; c < h.cg; ++c) {
      uint64_t* to = found.data() + c / h.kr;
      for (int64_t t = 0; t < taps; ++t, to += depth) {
        *to |= uint64_t{is_entry(w, small, from + c * taps + t)} << row;
      }
    }
  }
  return found;
}

// visit(row, k, weight): every weight of a panel's blocks that the matrix has.
template <class Char, class F>
void each_weight(const SparseHeader& h, Char* begin, int64_t part, const F& visit) {
  const Panel panel(h, h.nr, part);
  const auto* counts = reinterpret_cast<const uint32_t*>(begin);
  const auto* at = reinterpret_cast<const uint16_t*>(counts + h.taps());
  int64_t entries = 0;
  for (int64_t t = 0; t < h.taps(); ++t) entries += counts[t];
  Char* block = begin + ConvLists::values_at(h.taps(), entries);
  const int64_t element = element_bytes(h);
  for (int64_t t = 0; t < h.taps(); ++t) {
    for (uint32_t i = counts[t]; i > 0; --i, ++at, block += h.nr * h.kr * element) {
      for (int64_t row = 0; row < panel.rows; ++row) {
        for (int64_t j = 0, c = int64_t{*at} * h.kr; j < h.kr && c < h.cg; ++j, ++c) {
          visit(panel.row + row, t * h.cg + c, block + (row * h.kr + j) * element);
        }
      }
    }
  }
}

// A weight among products of pairs, or of floats, as bits of a float.
uint32_t read_bits(const SparseHeader& h, const char* weight) {
  uint32_t bits = 0;
  if (h.of_pairs()) {
    uint16_t half;
    std::memcpy(&half, weight, 2);
    return uint32_t{half} << 16;
  }
  std::memcpy(&bits, weight, 4);
  return bits;
}
void write_bits(const SparseHeader& h, uint32_t bits, char* weight) {
  const auto half = static_cast<uint16_t>(bits >> 16);
  h.of_pairs() ? std::memcpy(weight, &half, 2) : std::memcpy(weight, &bits, 4);
}

uint32_t bits_in(const SparseMatrix& m, int64_t at) {
  if (m.type == Dtype::bf16) return uint32_t{static_cast<const uint16_t*>(m.data)[at]} << 16;
  return static_cast<const uint32_t*>(m.data)[at];
}
constexpr uint32_t kMinusZero = uint32_t{1} << 31;

}  // namespace

bool blocks_possible(const ConvKernel& kernel, const SparseHeader& h) {
  const bool odd = h.cg % kernel.kr != 0 && h.taps() > 1;  // a pair would be of two taps
  return !h.of_codes() && !odd && kernel.nr <= kMostOutputs && h.cg <= kMostPlaces;
}

FormCosts form_costs(const ConvKernel& kernel, const SparseHeader& header, const void* w,
                     int64_t part) {
  SparseHeader h = header;
  h.kr = 1;
  const Panel panel(h, kernel.nr, part);
  const std::vector<uint64_t> found = outputs_at(h, w, panel);
  const int half = kernel.nr / 2;
  const double wide = kWide * kernel.nr, narrow = kNarrow * half;
  std::vector<int64_t> entries(static_cast<size_t>(kernel.nr / 4 + 1)), shared(entries.size());
  const LaneCosts& lanes = header.of_pairs() ? kPairLanes : kFloatLanes;
  FormCosts costs = {};
  uint64_t outputs = 0;
  for (size_t k = 0; k < found.size(); ++k) {
    outputs |= found[k];
    for (size_t four = 0; four < entries.size(); ++four) {
      const auto own = static_cast<int>(found[k] >> (4 * four) & 15);
      entries[four] += __builtin_popcount(own);
      shared[four] += own != 0;
    }
    if ((k + 1) % kernel.kr != 0 && k + 1 != found.size()) continue;
    costs.wide += outputs != 0 ? wide : 0;
    costs.narrow += (outputs & ((uint64_t{1} << half) - 1)) != 0 ? narrow : 0;
    costs.narrow += outputs >> half != 0 ? narrow : 0;
    outputs = 0;
  }
  for (size_t four = 0; four < entries.size(); ++four) {
    const auto alone = lanes.entry * static_cast<double>(entries[four]);
    const auto together = lanes.quad * static_cast<double>(shared[four]);
    costs.tokens += alone < together ? alone : together;
  }
  const auto rows = static_cast<double>(panel.rows), k = static_cast<double>(h.k());
  const auto blocks = static_cast<double>((h.k() + lanes.depth - 1) / lanes.depth);
  const auto share = rows / static_cast<double>(h.group_oc());
  costs.tokens += rows * (kOutput + kBlock * blocks) + share * k * lanes.value;
  costs.wide += kernel.nr * kOutput;
  costs.narrow += kernel.nr * kOutput;
  return costs;
}

SparseHeader cheapest_form(const ConvKernel& kernel, const SparseHeader& header,
                           const FormCosts& costs) {
  SparseHeader h = header;
  if (costs.tokens < costs.wide && costs.tokens < costs.narrow) return h;
  h.nr = costs.wide <= costs.narrow || kernel.nr < 2 ? kernel.nr : kernel.nr / 2;
  h.kr = kernel.kr;
  h.products = static_cast<int32_t>(h.kr == 2 ? SparseProducts::bf16 : SparseProducts::f32);
  h.kc = 0;
  return h;
}

int64_t pack_panel(const SparseHeader& h, const void* w, int64_t part, char* out) {
  const Panel panel(h, h.nr, part);
  const std::vector<uint64_t> found = outputs_at(h, w, panel);
  const int64_t taps = h.taps(), depth = places(h);
  int64_t entries = 0;
  for (const uint64_t outputs : found) entries += outputs != 0;
  const int64_t first = ConvLists::values_at(taps, entries);
  const int64_t bytes = round_up(first + entries * h.nr * h.kr * element_bytes(h), 64);
  if (out == nullptr) return bytes;
  std::memset(out, 0, static_cast<size_t>(bytes));
  auto* counts = reinterpret_cast<uint32_t*>(out);
  auto* at = reinterpret_cast<uint16_t*>(counts + taps);
  for (int64_t t = 0; t < taps; ++t) {
    for (int64_t i = 0; i < depth; ++i) {
      if (found[static_cast<size_t>(t * depth + i)] == 0) continue;
      ++counts[t];
      *at++ = static_cast<uint16_t>(i);
    }
  }
  const SparseMatrix m = {const_cast<void*>(w), static_cast<Dtype>(h.type), h.k(), 1};
  each_weight(h, out, part, [&](int64_t row, int64_t k, char* weight) {
    const uint32_t bits = bits_in(m, m.place(h, row, k));
    if ((bits << 1) != 0) write_bits(h, bits, weight);
  });
  return bytes;
}

bool known_blocks(const SparseHeader& h) {
  return !h.of_codes() && h.few == 0 && h.nr >= 1 && h.nr <= kMostOutputs && h.cg <= kMostPlaces &&
         (h.cg % h.kr == 0 || h.taps() == 1);
}

bool blocks_fit(const void* packed) {
  const SparseHeader& h = sparse_header(packed);
  const int64_t* begins = sparse_begins(packed);
  const int64_t taps = h.taps(), depth = places(h);
  for (int64_t part = 0; part < h.parts(); ++part) {
    const int64_t room = begins[part + 1] - begins[part];
    if (begins[part + 1] % 64 != 0 || room < 4 * taps) return false;
    const char* begin = static_cast<const char*>(packed) + begins[part];
    const auto* counts = reinterpret_cast<const uint32_t*>(begin);
    const auto* at = reinterpret_cast<const uint16_t*>(counts + taps);
    int64_t entries = 0;
    for (int64_t t = 0; t < taps && entries <= room; ++t) entries += counts[t];
    if (entries > room ||
        ConvLists::values_at(taps, entries) + entries * h.nr * h.kr * element_bytes(h) > room) {
      return false;
    }
    uint16_t most = 0;
    for (int64_t i = 0; i < entries; ++i) most = at[i] > most ? at[i] : most;
    if (entries > 0 && most >= depth) return false;
  }
  return true;
}

void unpack_blocks(const void* packed, int64_t first, int64_t last, const SparseMatrix& to) {
  const SparseHeader& h = sparse_header(packed);
  const char* all = static_cast<const char*>(packed);
  for (int64_t part = first; part < last; ++part) {
    each_weight(h, all + sparse_begins(packed)[part], part,
                [&](int64_t row, int64_t k, const char* weight) {
                  const uint32_t bits = read_bits(h, weight);
                  if ((bits << 1) == 0) return;
                  const int64_t at = to.place(h, row, k);
                  if (to.type == Dtype::bf16) {
                    static_cast<uint16_t*>(to.data)[at] = static_cast<uint16_t>(bits >> 16);
                  } else {
                    static_cast<uint32_t*>(to.data)[at] = bits;
                  }
                });
  }
}

void refresh_blocks(void* packed, int64_t first, int64_t last, const SparseMatrix& from) {
  const SparseHeader& h = sparse_header(packed);
  char* all = static_cast<char*>(packed);
  for (int64_t part = first; part < last; ++part) {
    each_weight(h, all + sparse_begins(packed)[part], part,
                [&](int64_t row, int64_t k, char* weight) {
                  if (read_bits(h, weight) == 0) return;  // fills the block
                  const uint32_t bits = bits_in(from, from.place(h, row, k));
                  write_bits(h, (bits << 1) != 0 ? bits : kMinusZero, weight);
                });
  }
}

ConvLists lists_of(const void* packed) {
  const SparseHeader& h = sparse_header(packed);
  ConvHeader dense = {};
  dense.nr = h.nr, dense.kr = h.kr;
  dense.type = h.type;
  dense.products = static_cast<int32_t>(h.of_pairs() ? ConvProducts::bf16 : ConvProducts::f32);
  dense.oc = h.oc, dense.cg = h.cg, dense.kh = h.kh, dense.kw = h.kw, dense.groups = h.groups;
  return {dense, static_cast<const char*>(packed), sparse_begins(packed)};
}

}  // namespace pyops::cpu
