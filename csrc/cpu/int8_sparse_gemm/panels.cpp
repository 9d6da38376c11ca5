#include "cpu/int8_sparse_gemm/panels.h"

#include "cpu/int8_gemm/int8_gemm.h"
#include "cpu/sparse_gemm/entries.h"

namespace pyops::cpu {
namespace {

constexpr int kColStep = 16;  // of what is stored
constexpr int kMostPanels = kSectionRows / kPanelCols;

int64_t stored_cols(int64_t cols) { return round_up(cols, kColStep); }
int64_t panels_of(const SparsePlace& p) { return (p.rows + kPanelCols - 1) / kPanelCols; }
int64_t panel_cols(const SparsePlace& p, int64_t panel) {
  return min64(kPanelCols, p.rows - panel * kPanelCols);
}
// Of quads: K in parts of the same depth.
int64_t segments_of(const SparseHeader& h) { return h.cg % 4 == 0 ? h.taps() : 1; }
int64_t windows_of(const SparseHeader& h) { return (h.k() + panel_depth(h) - 1) / panel_depth(h); }

// Rows of w in order of K.
struct Weights {
  const SparseHeader& h;
  const int8_t* w;
  int8_t at(int64_t row, int64_t k) const {
    return w[SparseMatrix{nullptr, Dtype::s8, h.k(), 1}.place(h, row, k)];
  }
};

// Whether outputs [row, row + cols) have an entry in k, ... k + 3.
bool quad_has(const Weights& w, int64_t row, int64_t cols, int64_t k) {
  const int64_t end = min64(k + 4, w.h.k());
  for (int64_t r = row; r < row + cols; ++r) {
    for (int64_t i = k; i < end; ++i) {
      if (w.at(r, i) != 0) return true;
    }
  }
  return false;
}

// visit(panel, segment, k, row, cols): every four k, from k of a segment on, that outputs [row, row
// + cols) of a panel have an entry in.
template <class F>
void each_quad(const Weights& w, const SparsePlace& p, const F& visit) {
  const int64_t segments = segments_of(w.h), depth = w.h.k() / segments;
  for (int64_t i = 0; i < panels_of(p); ++i) {
    const int64_t row = p.row + i * kPanelCols, cols = panel_cols(p, i);
    for (int64_t s = 0; s < segments; ++s) {
      for (int64_t k = 0; k < depth; k += 4) {
        if (quad_has(w, row, cols, s * depth + k)) visit(i, s, k, row, cols);
      }
    }
  }
}

int64_t count_windows(const Weights& w, const SparsePlace& p, int64_t window) {
  const int64_t k = w.h.k();
  for (int64_t r = p.row; r < p.row + p.rows; ++r) {
    for (int64_t first = 0; first < k; first += window) {
      int entries = 0;
      for (int64_t i = first; i < min64(k, first + window); ++i) entries += w.at(r, i) != 0;
      if (entries > 4) return -1;
    }
  }
  return (k + window - 1) / window * stored_cols(p.rows) * 4;
}

// Where the parts of a section of quads are.
struct Quads {
  const uint32_t* counts;
  const uint16_t* at[kMostPanels];
  const int8_t* w[kMostPanels];
  int64_t steps[kMostPanels];
};

int64_t lists_at(const SparseHeader& h, int64_t panels) { return panels * segments_of(h) * 4; }

// False where damaged counts lead out of the section.
bool find_quads(const SparseHeader& h, const SparsePlace& p, const char* section, const char* end,
                Quads* q) {
  const int64_t panels = panels_of(p), segments = segments_of(h), bytes = end - section;
  if (lists_at(h, panels) > bytes) return false;
  q->counts = reinterpret_cast<const uint32_t*>(section);
  int64_t all = 0;
  for (int64_t i = 0; i < panels; ++i) {
    q->steps[i] = 0;
    for (int64_t s = 0; s < segments; ++s) {
      q->steps[i] += q->counts[i * segments + s];
      if (q->steps[i] > bytes) return false;  // and no sum or product below can overflow
    }
    all += q->steps[i];
  }
  const auto* at = reinterpret_cast<const uint16_t*>(section + lists_at(h, panels));
  int64_t values = round_up(lists_at(h, panels) + 2 * all, 64);
  for (int64_t i = 0; i < panels; ++i) {
    q->at[i] = at;
    q->w[i] = reinterpret_cast<const int8_t*>(section) + values;
    at += q->steps[i];
    values += q->steps[i] * stored_cols(panel_cols(p, i)) * 4;
  }
  return values <= bytes;
}

int64_t pack_quads(const Weights& w, const SparsePlace& p, char* out) {
  const SparseHeader& h = w.h;
  const int64_t panels = panels_of(p), segments = segments_of(h), depth = h.k() / segments;
  int64_t all = 0, values = 0;
  auto* counts = reinterpret_cast<uint32_t*>(out);
  auto* at = reinterpret_cast<uint16_t*>(out + (out ? lists_at(h, panels) : 0));
  if (out) std::memset(out, 0, static_cast<size_t>(lists_at(h, panels)));
  each_quad(w, p, [&](int64_t i, int64_t s, int64_t k, int64_t, int64_t cols) {
    if (out) counts[i * segments + s] += 1, at[all] = static_cast<uint16_t>(k / 4);
    ++all, values += stored_cols(cols) * 4;
  });
  const int64_t lists = lists_at(h, panels) + 2 * all, begin = round_up(lists, 64);
  if (!out) return round_up(begin + values, 64);
  std::memset(out + lists, 0, static_cast<size_t>(round_up(begin + values, 64) - lists));
  char* to = out + begin;
  each_quad(w, p, [&](int64_t, int64_t s, int64_t k, int64_t row, int64_t cols) {
    const int64_t first = s * depth + k, last = min64(first + 4, h.k());
    for (int64_t r = 0; r < cols; ++r) {
      for (int64_t j = first; j < last; ++j) {
        to[r * 4 + j - first] = static_cast<char>(w.at(row + r, j));
      }
    }
    to += stored_cols(cols) * 4;
  });
  return round_up(begin + values, 64);
}

int64_t pack_windows(const Weights& w, const SparsePlace& p, char* out) {
  const int64_t depth = panel_depth(w.h), k = w.h.k(), windows = windows_of(w.h);
  const int64_t bytes = windows * stored_cols(p.rows) * 8;
  if (!out) return bytes;
  std::memset(out, 0, static_cast<size_t>(bytes));
  for (int64_t r = 0; r < p.rows; ++r) {
    const int64_t panel = r / kPanelCols, half = stored_cols(panel_cols(p, panel)) * 4;
    char* to = out + windows * panel * kPanelCols * 8;
    for (int64_t i = 0; i < windows; ++i, to += 2 * half) {
      int64_t entry = 4 * (r % kPanelCols);
      for (int64_t j = i * depth; j < min64(k, (i + 1) * depth); ++j) {
        const int8_t weight = w.at(p.row + r, j);
        if (weight == 0) continue;
        to[entry] = static_cast<char>(weight);
        to[half + entry++] = static_cast<char>(j - i * depth);
      }
    }
  }
  return bytes;
}

void unpack_quads(const SparseHeader& h, const SparsePlace& p, const Quads& q,
                  const SparseMatrix& to) {
  const int64_t segments = segments_of(h), depth = h.k() / segments;
  for (int64_t i = 0; i < panels_of(p); ++i) {
    const uint16_t* at = q.at[i];
    const int8_t* w = q.w[i];
    const int64_t cols = panel_cols(p, i);
    for (int64_t s = 0; s < segments; ++s) {
      for (uint32_t e = q.counts[i * segments + s]; e > 0; --e, w += stored_cols(cols) * 4) {
        const int64_t first = 4 * int64_t{*at++};
        for (int64_t j = 0; j < 4 * cols; ++j) {
          const int64_t k = first + j % 4, row = p.row + i * kPanelCols + j / 4;
          if (w[j] == 0 || k >= depth) continue;
          static_cast<int8_t*>(to.data)[to.place(h, row, s * depth + k)] = w[j];
        }
      }
    }
  }
}

void unpack_windows(const SparseHeader& h, const SparsePlace& p, const char* section,
                    const SparseMatrix& to) {
  const int64_t depth = panel_depth(h), windows = windows_of(h);
  for (int64_t r = 0; r < p.rows; ++r) {
    const int64_t panel = r / kPanelCols, half = stored_cols(panel_cols(p, panel)) * 4;
    const char* from = section + windows * panel * kPanelCols * 8 + 4 * (r % kPanelCols);
    for (int64_t i = 0; i < windows; ++i, from += 2 * half) {
      for (int64_t j = 0; j < 4; ++j) {
        const int64_t k = i * depth + static_cast<uint8_t>(from[half + j]) % depth;
        if (from[j] == 0 || k >= h.k()) continue;
        static_cast<int8_t*>(to.data)[to.place(h, p.row + r, k)] = static_cast<int8_t>(from[j]);
      }
    }
  }
}

// Cycles of 64 tokens on AVX-512 (pyops/ops/sparse_cost.py has the same): a byte of entries, what
// entries take for a value of k and an output, and an output in another block of k; a byte of a
// panel of quads, and of weights of windows, an output of panels, and a value of k that it skips.
constexpr double kEntryByte = 0.45, kValue = 8, kOutput = 16, kBlock = 14;
constexpr double kQuadByte = 0.5, kWindowByte = 0.76, kPanelOutput = 30, kPanelValue = 0.015;

}  // namespace

PanelCounts count_panels(const SparseHeader& h, const int8_t* weights, int64_t index) {
  const int64_t group = index / h.sections(), section = index % h.sections();
  const SparsePlace p = place_of(h, sparse_part(h, group, 0, section));
  const Weights w = {h, weights};
  PanelCounts counts;
  each_quad(w, p, [&](int64_t, int64_t, int64_t, int64_t, int64_t cols) {
    counts.quads += stored_cols(cols) * 4;
  });
  counts.windows8 = count_windows(w, p, 8);
  counts.windows16 = count_windows(w, p, 16);
  return counts;
}

bool choose_panels(const SparseGemmKernel& kernel, const PanelCounts& counts, int64_t bytes,
                   SparseHeader* h) {
  const auto outputs = static_cast<double>(h->oc);
  double least = kEntryByte * static_cast<double>(bytes) +
                 kValue * static_cast<double>(h->groups * h->k()) +
                 outputs * (kOutput + kBlock * static_cast<double>(h->blocks()));
  SparseForm form = SparseForm::entries;
  const auto offer = [&](SparseForm other, double cost, int64_t count, bool runs) {
    const double cycles = cost * static_cast<double>(count) +
                          outputs * (kPanelOutput + kPanelValue * static_cast<double>(h->k()));
    if (runs && count >= 0 && cycles < least) least = cycles, form = other;
  };
  offer(SparseForm::quads, kQuadByte, counts.quads, kernel.panels.quads != nullptr);
  offer(SparseForm::windows8, kWindowByte, counts.windows8, kernel.panels.windows8 != nullptr);
  offer(SparseForm::windows16, kWindowByte, counts.windows16, kernel.panels.windows16 != nullptr);
  if (form == SparseForm::entries) return false;
  h->form = form;
  h->kc = static_cast<int32_t>(round_up(h->k(), 16));
  return true;
}

int64_t pack_panels(const SparseHeader& h, const int8_t* weights, int64_t part, char* out) {
  const SparsePlace p = place_of(h, part);
  if (h.form == SparseForm::quads) return pack_quads({h, weights}, p, out);
  return pack_windows({h, weights}, p, out);
}

void unpack_panels(const void* packed, int64_t first, int64_t last, const SparseMatrix& to) {
  const SparseHeader& h = sparse_header(packed);
  for (int64_t part = first; part < last; ++part) {
    const int64_t* begins = sparse_begins(packed) + part;
    const char* all = static_cast<const char*>(packed);
    const SparsePlace p = place_of(h, part);
    if (h.form == SparseForm::quads) {
      Quads q;
      if (find_quads(h, p, all + begins[0], all + begins[1], &q)) unpack_quads(h, p, q, to);
    } else if (begins[1] - begins[0] >= windows_of(h) * stored_cols(p.rows) * 8) {
      unpack_windows(h, p, all + begins[0], to);
    }
  }
}

void find_panel(const void* packed, int64_t group, int64_t n0, Int8GemmBlock* block) {
  const SparseHeader& h = sparse_header(packed);
  const int64_t part = sparse_part(h, group, 0, n0 / kSectionRows);
  const int64_t* begins = sparse_begins(packed) + part;
  const char *section = static_cast<const char*>(packed) + begins[0],
             *end = static_cast<const char*>(packed) + begins[1];
  const SparsePlace p = place_of(h, part);
  block->steps = 0;
  const int64_t col = n0 % kPanelCols, panel = n0 % kSectionRows / kPanelCols;
  const int64_t stored = stored_cols(panel_cols(p, panel));
  block->stored_cols = static_cast<int>(stored);
  if (h.form == SparseForm::quads) {
    Quads q;
    if (!find_quads(h, p, section, end, &q)) return;
    block->w = q.w[panel] + 4 * col;
    block->step_bytes = 4 * stored;
    block->steps = q.steps[panel];
    block->counts = q.counts + panel * segments_of(h);
    block->at = q.at[panel];
    return;
  }
  const int64_t windows = windows_of(h);
  if (end - section < windows * stored_cols(p.rows) * 8) return;
  block->w = reinterpret_cast<const int8_t*>(section) + windows * panel * kPanelCols * 8 + 4 * col;
  block->step_bytes = 8 * stored;
  block->steps = windows;
}

}  // namespace pyops::cpu
