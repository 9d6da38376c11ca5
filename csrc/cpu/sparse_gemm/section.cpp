// A section from a weight: which outputs go together, and their entries.
#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/int8_sparse_gemm/panels.h"
#include "cpu/sparse_gemm/blocks.h"
#include "cpu/sparse_gemm/entries.h"

namespace pyops::cpu {
namespace {

struct Entry {
  int32_t k;  // from the block's first on
  float value;
};

// The entries of one output.
template <int kMostDepth>
struct Row {
  Entry entries[kMostDepth];
  int32_t count;
};

template <class Row>
void fill_row(const SparseHeader& h, const void* w, const SparsePlace& p, int64_t index, Row* row) {
  const auto type = static_cast<Dtype>(h.type);
  const SparseMatrix m = {nullptr, type, h.k(), 1};
  row->count = 0;
  for (int64_t k = p.k; k < p.k_end; ++k) {
    const float value = value_at(w, type, m.place(h, p.row + index, k));
    // Without a branch that nothing predicts. NaN is an entry, and so is what is denormal, whatever
    // the CPU makes of it.
    row->entries[row->count] = {static_cast<int32_t>(k - p.k), value};
    row->count += (float_bits(value) << 1) != 0;
  }
}

// Bytes one after another; without memory it counts.
class Writer {
 public:
  explicit Writer(char* out) : out_(out) {}
  template <class T>
  void put(const T& value) {
    if (out_) std::memcpy(out_ + bytes_, &value, sizeof value);
    bytes_ += sizeof value;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* const out_;
  int64_t bytes_ = 0;
};

template <class Items>
class Section {
 public:
  Section(const SparseHeader& h, const void* w, int64_t part)
      : h_(h), place_(place_of(h, part)), rows_(static_cast<size_t>(place_.rows)) {
    for (int64_t row = 0; row < place_.rows; ++row) fill_row(h, w, place_, row, &rows_[row]);
    for (int64_t row = 0; row < place_.rows; row += 4) {
      if (row + 4 <= place_.rows && shared(row) > 0) {
        quads_.push_back(row);
        continue;
      }
      for (int64_t r = row; r < min64(row + 4, place_.rows); ++r) {
        if (place_.first || rows_[r].count > 0) singles_.push_back(r);
      }
    }
    std::stable_sort(singles_.begin(), singles_.end(),
                     [this](int64_t a, int64_t b) { return rows_[a].count > rows_[b].count; });
  }

  int64_t write(char* out) const {
    Writer to(out);
    to.put(SparseCounts{static_cast<uint32_t>((singles_.size() + 1) / 2),
                        static_cast<uint32_t>(quads_.size())});
    for (size_t i = 0; i < singles_.size(); i += 2) {
      write_pair(singles_[i], i + 1 < singles_.size() ? singles_[i + 1] : kSpareRow, &to);
    }
    for (const int64_t row : quads_) write_quad(row, &to);
    return to.bytes();
  }

 private:
  static constexpr int32_t kNone = Items::kMostDepth;

  // The k of outputs [row, row + 4), in order, one after another to visit(k, values, has); has: a
  // bit for each output that has it.
  template <class F>
  void each_of_four(int64_t row, const F& visit) const {
    int32_t next[4] = {};
    for (;;) {
      int32_t k = kNone;
      for (int i = 0; i < 4; ++i) k = std::min(k, k_of(row + i, next[i]));
      if (k == kNone) return;
      float values[4];
      int outputs = 0;
      for (int i = 0; i < 4; ++i) {
        const bool has = k_of(row + i, next[i]) == k;
        values[i] = has ? rows_[row + i].entries[next[i]].value : 0.0f;
        next[i] += has;
        outputs |= has << i;
      }
      visit(k, values, outputs);
    }
  }
  int32_t k_of(int64_t row, int32_t i) const {
    return i < rows_[row].count ? rows_[row].entries[i].k : kNone;
  }

  // How many k outputs [row, row + 4) have, where a quad pays, and 0 where none does.
  int32_t shared(int64_t row) const {
    int32_t entries = 0, all = 0, longest = 0;
    for (int64_t i = row; i < row + 4; ++i) {
      entries += rows_[i].count;
      longest = std::max(longest, rows_[i].count);
    }
    if (entries < Items::kQuadCost * longest) return 0;  // before counting
    each_of_four(row, [&](int32_t, const float*, int) { ++all; });
    return entries >= Items::kQuadCost * all ? all : 0;
  }

  uint16_t at(int64_t k) const { return static_cast<uint16_t>(k * h_.row_bytes()); }

  void write_pair(int64_t a, int64_t b, Writer* to) const {
    const int64_t pair[2] = {a, b};
    const int32_t counts[2] = {rows_[a].count, b == kSpareRow ? 0 : rows_[b].count};
    constexpr int32_t kEach = Items::kPairEntries;
    const int32_t items = (std::max(counts[0], counts[1]) + kEach - 1) / kEach;
    to->put(SparsePair{{static_cast<uint16_t>(a), static_cast<uint16_t>(b)},
                       static_cast<uint32_t>(items)});
    for (int32_t i = 0; i < items; ++i) {
      typename Items::Pair item;
      for (int32_t j = 0; j < 2 * kEach; ++j) {
        const int32_t output = j / kEach, entry = kEach * i + j % kEach;
        const bool there = entry < counts[output];
        const Entry e = there ? rows_[pair[output]].entries[entry] : Entry{h_.kc, 0.0f};
        const int place = Items::pair_at(output, j % kEach);
        item.at[place] = at(e.k);
        item.w[place] = Items::weight(e.value);
      }
      to->put(item);
    }
  }

  void write_quad(int64_t row, Writer* to) const {
    constexpr int32_t kEach = Items::kQuadEntries;
    const int32_t items = (shared(row) + kEach - 1) / kEach;
    SparseQuad quad = {{}, static_cast<uint32_t>(items)};
    for (int64_t i = 0; i < 4; ++i) quad.rows[i] = static_cast<uint16_t>(row + i);
    to->put(quad);
    typename Items::Quad item;
    int32_t filled = 0;
    const auto add = [&](int32_t k, const float* values, int outputs) {
      if (filled == 0) item = {};
      item.at[kEach == 1 ? 0 : filled] = at(k);  // gcc warns of the other one
      for (int output = 0; output < 4; ++output) {
        item.w[Items::quad_at(output, filled)] = Items::weight(values[output]);
        if ((outputs >> output & 1) != 0) Items::set_has(&item, output, filled);
      }
      filled = (filled + 1) % kEach;
      if (filled == 0) to->put(item);
    };
    each_of_four(row, add);
    constexpr float kZeros[4] = {};
    while (filled != 0) add(h_.kc, kZeros, 0);
  }

  const SparseHeader& h_;
  const SparsePlace place_;
  std::vector<Row<Items::kMostDepth>> rows_;
  std::vector<int64_t> singles_, quads_;
};

}  // namespace

int64_t pack_section(const SparseHeader& h, const void* w, int64_t part, char* out) {
  if (h.of_float_panels()) return pack_panel(h, w, part, out);
  if (h.of_code_panels()) return pack_panels(h, static_cast<const int8_t*>(w), part, out);
  if (h.of_codes()) return Section<Int8Items>(h, w, part).write(out);
  if (h.of_pairs()) return Section<Bf16Items>(h, w, part).write(out);
  return Section<FloatItems>(h, w, part).write(out);
}

}  // namespace pyops::cpu
