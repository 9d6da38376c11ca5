// A section from a weight: which outputs go together, and their entries.
#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/sparse_gemm/entries.h"

namespace pyops::cpu {
namespace {

struct Entry {
  int64_t k;  // from the block's first on
  float value;
};
using Row = std::vector<Entry>;

Row row_entries(const SparseHeader& h, const void* w, const SparsePlace& p, int64_t row) {
  const auto type = static_cast<Dtype>(h.type);
  const SparseMatrix m = {nullptr, type, h.k(), 1};
  Row entries;
  for (int64_t k = p.k; k < p.k_end; ++k) {
    const float value = value_at(w, type, m.place(h, p.row + row, k));
    if (value != 0) entries.push_back({k - p.k, value});  // NaN too
  }
  return entries;
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

class Section {
 public:
  Section(const SparseHeader& h, const void* w, int64_t part) : h_(h), place_(place_of(h, part)) {
    for (int64_t row = 0; row < place_.rows; ++row) rows_.push_back(row_entries(h, w, place_, row));
    for (int64_t row = 0; row < place_.rows; row += 4) {
      if (row + 4 <= place_.rows && shared(row)) {
        quads_.push_back(row);
        continue;
      }
      for (int64_t r = row; r < min64(row + 4, place_.rows); ++r) {
        if (place_.first || !rows_[r].empty()) singles_.push_back(r);
      }
    }
    std::stable_sort(singles_.begin(), singles_.end(),
                     [this](int64_t a, int64_t b) { return rows_[a].size() > rows_[b].size(); });
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
  // The k of outputs [row, row + 4), in order.
  std::vector<int64_t> union_of(int64_t row) const {
    std::vector<int64_t> all;
    for (int64_t i = row; i < row + 4; ++i) {
      for (const Entry& e : rows_[i]) all.push_back(e.k);
    }
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
  }

  // A k of a quad costs what 3.3 entries of pairs do.
  bool shared(int64_t row) const {
    size_t entries = 0;
    for (int64_t i = row; i < row + 4; ++i) entries += rows_[i].size();
    return entries > 0 && 3 * entries >= 10 * union_of(row).size();
  }

  uint16_t at(int64_t k) const { return static_cast<uint16_t>(k * h_.nr * 4); }

  void write_pair(int64_t a, int64_t b, Writer* to) const {
    static const Row kNone;
    const Row* rows[2] = {&rows_[a], b == kSpareRow ? &kNone : &rows_[b]};
    const size_t items = (std::max(rows[0]->size(), rows[1]->size()) + 1) / 2;
    to->put(SparsePair{{static_cast<uint16_t>(a), static_cast<uint16_t>(b)},
                       static_cast<uint32_t>(items)});
    for (size_t i = 0; i < items; ++i) {
      SparsePairItem item;
      for (size_t j = 0; j < 4; ++j) {
        const Row& row = *rows[j % 2];
        const size_t entry = 2 * i + j / 2;
        const bool there = entry < row.size();
        item.at[j] = at(there ? row[entry].k : h_.kc);
        item.w[j] = there ? row[entry].value : 0.0f;
      }
      to->put(item);
    }
  }

  void write_quad(int64_t row, Writer* to) const {
    const std::vector<int64_t> ks = union_of(row);
    SparseQuad quad = {{}, static_cast<uint32_t>(ks.size())};
    for (int64_t i = 0; i < 4; ++i) quad.rows[i] = static_cast<uint16_t>(row + i);
    to->put(quad);
    size_t next[4] = {};
    for (const int64_t k : ks) {
      SparseQuadItem item = {at(k), 0, {}};
      for (int64_t i = 0; i < 4; ++i) {
        const Row& own = rows_[row + i];
        if (next[i] == own.size() || own[next[i]].k != k) continue;
        item.has = static_cast<uint16_t>(item.has | 1 << i);
        item.w[i] = own[next[i]++].value;
      }
      to->put(item);
    }
  }

  const SparseHeader& h_;
  const SparsePlace place_;
  std::vector<Row> rows_;
  std::vector<int64_t> singles_, quads_;
};

}  // namespace

int64_t pack_section(const SparseHeader& h, const void* w, int64_t part, char* out) {
  return Section(h, w, part).write(out);
}

}  // namespace pyops::cpu
