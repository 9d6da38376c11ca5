#include "cpu/int8_gemm/int8_gemm.h"
#include "cpu/int8_sparse_gemm/panels.h"
#include "cpu/sparse_gemm/blocks.h"
#include "cpu/sparse_gemm/entries.h"
#include "cpu/sparse_gemm/few_rows.h"

#if defined(__linux__)
#include <unistd.h>
#endif

#include <cstddef>
#include <cstring>

namespace pyops::cpu {
namespace {

constexpr int32_t kVersion = 1;
constexpr int64_t kMostBytes = int64_t{1} << 46;
constexpr int64_t kBlockStep = 16;  // kc is a multiple of it

int64_t most_depth(const SparseHeader& h) {
  return h.of_codes()   ? Int8Items::kMostDepth
         : h.of_pairs() ? Bf16Items::kMostDepth
                        : FloatItems::kMostDepth;
}

bool known_products(const SparseHeader& h) {
  const auto type = static_cast<Dtype>(h.type);
  switch (static_cast<SparseProducts>(h.products)) {
    case SparseProducts::f32: return h.kr == 1 && (type == Dtype::f32 || type == Dtype::bf16);
    case SparseProducts::bf16: return h.kr == 2 && type == Dtype::bf16;
    case SparseProducts::s32: return type == Dtype::s8;
  }
  return false;
}

bool known_format(const SparseHeader& h) {
  if (h.of_float_panels() && !(h.cg >= 1 && h.kr >= 1 && known_blocks(h))) return false;
  const bool forms = h.of_code_panels()
                         ? h.of_codes() && h.kc >= 1 && h.form >= SparseForm::entries &&
                               h.form <= SparseForm::windows16
                         : h.of_float_panels() || (h.kc >= 1 && h.kc <= most_depth(h) &&
                                                   h.kc * h.row_bytes() < kBlockReach);
  const bool layout = h.nr >= 1 && h.nr <= kMostTokens && h.kr >= 1 && forms;
  const bool shape = h.oc >= 1 && h.cg >= 1 && h.kh >= 1 && h.kw >= 1 && h.groups >= 1 &&
                     (h.few == 0 || h.few == 1);
  if (!known_products(h) || !layout || !shape || h.oc % h.groups != 0) return false;
  // In double: a product of damaged sizes could wrap around.
  const double all = (h.oc + 64.0 * h.groups) * (h.cg + 1.0) * h.kh * h.kw;
  if (all >= static_cast<double>(kMostBytes)) return false;
  return !h.of_code_panels() || (h.k() <= kMaxK && h.kc == round_up(h.k(), 16));
}

// Blocks of x that fill the first-level cache gain more by fewer loads and stores of sums than the
// weight and the sums that pass by cost them.
int64_t block_bytes() {
  int64_t cache = 32 << 10;
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  if (const long size = sysconf(_SC_LEVEL1_DCACHE_SIZE); size > 0) cache = size;
#endif
  return cache;
}

// visit(row, k, weight): every entry of a part, but not what only fills up pairs and quads of
// floats. A caller may have damaged the bytes.
template <class Items, class Char, class F>
class SectionWalk {
 public:
  SectionWalk(const SparseHeader& h, const SparsePlace& place, Char* section, Char* end,
              const F& visit)
      : place_(place),
        depth_(min64(h.kc, place.k_end - place.k)),
        reciprocal_(((uint64_t{1} << 32) - 1) / static_cast<uint64_t>(h.row_bytes()) + 1),
        next_(section),
        end_(end),
        visit_(visit) {}

  void run() {
    SparseCounts counts;
    take(&counts);
    for (uint32_t i = 0; i < counts.pairs; ++i) {
      if (!pair()) return;
    }
    for (uint32_t i = 0; i < counts.quads; ++i) {
      if (!quad()) return;
    }
  }

 private:
  using Weight = typename Items::Weight;

  template <class T>
  bool has(int64_t count) const {
    return (end_ - next_) / static_cast<int64_t>(sizeof(T)) >= count;
  }
  template <class T>
  void take(T* to) {
    std::memcpy(to, next_, sizeof *to);
    next_ += sizeof *to;
  }

  void entry(int row, uint64_t at, Char* weight) const {
    const auto k = static_cast<int64_t>(at * reciprocal_ >> 32);
    if (k < depth_ && row < place_.rows) {
      visit_(place_.row + row, place_.k + k, weight);
    }
  }

  // A run and its items, each to one(run, item, weights); false where the bytes end before.
  template <class Run, class Item, class One>
  bool items_of(const One& one) {
    Run run;
    if (!has<Run>(1)) return false;
    take(&run);
    if (!has<Item>(run.items)) return false;
    for (uint32_t i = 0; i < run.items; ++i) {
      Char* weights = next_ + offsetof(Item, w);
      Item item;
      take(&item);
      one(run, item, weights);
    }
    return true;
  }

  bool pair() {
    using Item = typename Items::Pair;
    return items_of<SparsePair, Item>([&](const SparsePair& run, const Item& item, Char* weights) {
      for (int j = 0; j < 2 * Items::kPairEntries; ++j) {
        const int output = j / Items::kPairEntries;
        const int place = Items::pair_at(output, j % Items::kPairEntries);
        entry(run.rows[output], item.at[place], weights + place * sizeof(Weight));
      }
    });
  }

  bool quad() {
    using Item = typename Items::Quad;
    return items_of<SparseQuad, Item>([&](const SparseQuad& run, const Item& item, Char* weights) {
      for (int j = 0; j < 4 * Items::kQuadEntries; ++j) {
        const int output = j / Items::kQuadEntries, of = j % Items::kQuadEntries;
        const int place = Items::quad_at(output, of);
        if (!Items::has(item, output, of)) continue;
        entry(run.rows[output], item.at[of], weights + place * sizeof(Weight));
      }
    });
  }

  const SparsePlace& place_;
  const int64_t depth_;
  // of row_bytes, below 2^16 as `at` is: exact
  const uint64_t reciprocal_;
  Char* next_;
  Char* const end_;
  const F& visit_;
};

template <class Char, class F>
void each_entry(const SparseHeader& h, Char* all, int64_t part, const F& visit) {
  const int64_t* begins = sparse_begins(all) + part;
  const SparsePlace place = place_of(h, part);
  if (h.of_codes()) {
    SectionWalk<Int8Items, Char, F>(h, place, all + begins[0], all + begins[1], visit).run();
  } else if (h.of_pairs()) {
    SectionWalk<Bf16Items, Char, F>(h, place, all + begins[0], all + begins[1], visit).run();
  } else {
    SectionWalk<FloatItems, Char, F>(h, place, all + begins[0], all + begins[1], visit).run();
  }
}

}  // namespace

SparseHeader sparse_header_of(const SparseGemmKernel& kernel, Dtype type, const int64_t* shape,
                              int64_t groups) {
  SparseHeader h = {};
  std::memcpy(h.magic, kSparseMagic, 8);
  h.version = kVersion;
  h.nr = kernel.nr, h.kr = kernel.kr;
  h.type = static_cast<int32_t>(type);
  h.products = static_cast<int32_t>(kernel.products);
  h.oc = static_cast<int32_t>(shape[0]), h.cg = static_cast<int32_t>(shape[1]);
  h.kh = static_cast<int32_t>(shape[2]), h.kw = static_cast<int32_t>(shape[3]);
  h.groups = static_cast<int32_t>(groups);
  const int64_t line = h.row_bytes();
  const int64_t fit = min64(min64(block_bytes(), kBlockReach - line) / line, most_depth(h));
  h.kc = static_cast<int32_t>(max64(kBlockStep, fit / kBlockStep * kBlockStep));
  // Of the same length, because a short last one pays for its sums alike.
  if (h.of_codes() || h.of_pairs()) {
    const int64_t k = h.k(), blocks = (k + h.kc - 1) / h.kc;
    h.kc = static_cast<int32_t>(round_up((k + blocks - 1) / blocks, kBlockStep));
  }
  return h;
}

const char* sparse_problem(const void* packed, int64_t bytes) {
  if (!is_sparse(packed, bytes)) return "not made by sparse_pack (no header)";
  const SparseHeader& h = sparse_header(packed);
  if (h.version != kVersion) return "made by another version of pyops";
  if (!known_format(h)) return "its header is damaged";
  const int64_t parts = h.parts(), table = h.sections_at();
  if (h.bytes != bytes || bytes < table) return "its length contradicts its header";
  const int64_t* begins = sparse_begins(packed);
  // In order, so that no sum or difference of damaged numbers can overflow.
  bool inside = begins[0] == table;
  for (int64_t i = 0; inside && i < parts; ++i) {
    inside = begins[i + 1] <= bytes && begins[i + 1] >= begins[i] + int64_t{sizeof(SparseCounts)} &&
             (!h.of_code_panels() || begins[i + 1] % 64 == 0);
  }
  inside = inside && (h.few ? begins[parts] < bytes : round_up(begins[parts], 64) == bytes);
  if (!inside) return "its table of sections is damaged";
  if (h.of_float_panels() && !blocks_fit(packed)) return "its lists of k are damaged";
  return h.few ? few_problem(packed, bytes) : nullptr;
}

void sum_weights(const SparseHeader& h, const int8_t* w, int32_t* sums) {
  for (int64_t row = 0; row < h.oc; ++row, w += h.k()) {
    sums[row] = 0;
    for (int64_t k = 0; k < h.k(); ++k) sums[row] += w[k];
  }
}

void unpack_sparse(const void* packed, int64_t first, int64_t last, const SparseMatrix& to) {
  const SparseHeader& h = sparse_header(packed);
  if (h.of_float_panels()) return unpack_blocks(packed, first, last, to);
  if (h.of_code_panels()) return unpack_panels(packed, first, last, to);
  for (int64_t part = first; part < last; ++part) {
    each_entry(h, static_cast<const char*>(packed), part,
               [&](int64_t row, int64_t k, const char* weight) {
                 const int64_t at = to.place(h, row, k);
                 if (to.type == Dtype::s8) {
                   static_cast<int8_t*>(to.data)[at] = static_cast<int8_t>(*weight);
                   return;
                 }
                 if (h.of_pairs()) {
                   std::memcpy(static_cast<uint16_t*>(to.data) + at, weight, 2);
                   return;
                 }
                 float v;
                 std::memcpy(&v, weight, 4);
                 if (to.type == Dtype::bf16) {
                   static_cast<uint16_t*>(to.data)[at] = static_cast<uint16_t>(float_bits(v) >> 16);
                 } else {
                   static_cast<float*>(to.data)[at] = v;
                 }
               });
  }
}

void refresh_sparse(void* packed, int64_t first, int64_t last, const SparseMatrix& from) {
  const SparseHeader& h = sparse_header(packed);
  if (h.of_float_panels()) return refresh_blocks(packed, first, last, from);
  const bool plain = from.type == Dtype::f32 && h.taps() == 1;  // as in training
  const char* data = static_cast<const char*>(from.data);
  for (int64_t part = first; part < last; ++part) {
    if (plain) {
      each_entry(h, static_cast<char*>(packed), part, [&](int64_t row, int64_t k, char* weight) {
        std::memcpy(weight, data + 4 * (row * from.row_step + k * from.k_step), 4);
      });
      continue;
    }
    each_entry(h, static_cast<char*>(packed), part, [&](int64_t row, int64_t k, char* weight) {
      const int64_t at = from.place(h, row, k);
      if (h.of_pairs()) {
        std::memcpy(weight, static_cast<const uint16_t*>(from.data) + at, 2);
        return;
      }
      const float v = value_at(from.data, from.type, at);
      std::memcpy(weight, &v, 4);
    });
  }
}

}  // namespace pyops::cpu
