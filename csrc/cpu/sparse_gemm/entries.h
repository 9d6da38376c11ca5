// Where a section's entries are in the weight. Only packing includes this.
#pragma once
#include "cpu/common/half.h"
#include "cpu/sparse_gemm/pack.h"

namespace pyops::cpu {

// How many entries of an output an item holds, and where. kMostDepth: values of k in a block.
// kQuadCost: how many entries of pairs take the time of one k of a quad. set_has, has: whether an
// output of a quad has an entry of its own; of codes nobody asks. weight: as an item holds it.
struct FloatItems {
  using Pair = SparsePairItem;
  using Quad = SparseQuadItem;
  using Weight = float;
  static constexpr int kPairEntries = 2, kQuadEntries = 1, kMostDepth = 256;
  static constexpr double kQuadCost = 10.0 / 3.0;
  static constexpr int pair_at(int output, int entry) { return 2 * entry + output; }
  static constexpr int quad_at(int output, int) { return output; }
  static Weight weight(float value) { return value; }
  static void set_has(Quad* item, int output, int) {
    item->has = static_cast<uint16_t>(item->has | 1 << output);
  }
  static bool has(const Quad& item, int output, int) { return (item.has >> output & 1) != 0; }
};
struct Bf16Items {
  using Pair = Bf16PairItem;
  using Quad = Bf16QuadItem;
  using Weight = uint16_t;
  static constexpr int kPairEntries = 2, kQuadEntries = 2, kMostDepth = 384;
  static constexpr double kQuadCost = 2.4;
  static constexpr int pair_at(int output, int entry) { return 2 * output + entry; }
  static constexpr int quad_at(int output, int entry) { return 2 * output + entry; }
  static Weight weight(float value) { return static_cast<Weight>(float_bits(value) >> 16); }
  static void set_has(Quad* item, int output, int entry) {
    item->has = static_cast<uint16_t>(item->has | 1 << quad_at(output, entry));
  }
  static bool has(const Quad& item, int output, int entry) {
    return (item.has >> quad_at(output, entry) & 1) != 0;
  }
};
struct Int8Items {
  using Pair = Int8PairItem;
  using Quad = Int8QuadItem;
  using Weight = int8_t;
  static constexpr int kPairEntries = 4, kQuadEntries = 4, kMostDepth = 512;
  static constexpr double kQuadCost = 2.2;
  static constexpr int pair_at(int output, int entry) { return 4 * output + entry; }
  static constexpr int quad_at(int output, int entry) { return 4 * output + entry; }
  static Weight weight(float value) { return static_cast<Weight>(value); }
  static void set_has(Quad*, int, int) {}
  static bool has(const Quad&, int, int) { return true; }
};

// Which section a part is.
struct SparsePlace {
  int64_t row, rows;  // outputs of all groups
  int64_t k, k_end;
  bool first;  // block
};

inline SparsePlace place_of(const SparseHeader& h, int64_t part) {
  const int64_t section = part % h.sections(), block = part / h.sections() % h.blocks();
  const int64_t group = part / h.sections() / h.blocks();
  const int64_t row = section * kSectionRows, k = block * h.kc;
  return {group * h.group_oc() + row, min64(kSectionRows, h.group_oc() - row), k,
          min64(h.k(), k + h.kc), block == 0};
}

inline float value_at(const void* w, Dtype type, int64_t at) {
  if (type == Dtype::bf16) return bf16_to_float(static_cast<const uint16_t*>(w)[at]);
  if (type == Dtype::s8) return static_cast<const int8_t*>(w)[at];
  return static_cast<const float*>(w)[at];
}

}  // namespace pyops::cpu
