#include "cpu/sparse_gemm/run.h"

#include <cstring>
#include <vector>

#include "cpu/common/buffer.h"
#include "cpu/common/half.h"
#include "cpu/conv_relu/rows.h"
#include "cpu/conv_relu/work.h"

namespace pyops::cpu {
namespace {

// Sections whose sums stay in L2 while the blocks of k pass.
constexpr int64_t kMostSections = 16;
constexpr int64_t kSumBytes = 4;

struct Plan {
  const SparseCall& call;
  const SparseHeader& header;
  ConvInput input;
  int64_t tiles, columns;  // columns: sections of all groups

  int64_t line() const { return header.row_bytes(); }
  int64_t tables_bytes() const { return round_up(header.taps() * header.nr * 8, 64); }
  // An item may point anywhere up to kBlockReach.
  int64_t block_bytes() const { return kBlockReach + line(); }
  int64_t section_bytes() const { return (kSectionRows + 1) * header.nr * kSumBytes; }
  // One thread's tables of pointers, block of x and sums.
  int64_t scratch_bytes() const {
    const int64_t sections = min64(kMostSections, header.sections());
    return round_up(tables_bytes() + block_bytes() + sections * section_bytes(), 64);
  }
};

// The tokens of a tile, in strips of as many as fill_rows takes.
struct Tile {
  int64_t m0;
  int tokens;
  const void** tables;  // of all strips, one after another

  int in_strip(int first) const { return static_cast<int>(min64(kConvPixels, tokens - first)); }
};

// Sections [first, first + count) of one group.
struct Columns {
  int64_t group, first, count;
};

void fill_tables(const Plan& p, const Tile& tile) {
  const void** rows = tile.tables;
  for (int first = 0; first < tile.tokens; first += kConvPixels) {
    const int tokens = tile.in_strip(first);
    fill_rows(p.input, tile.m0 + first, tokens, rows);
    rows += p.header.taps() * tokens;
  }
}

// Values [k0, k1) of the tile's tokens, segment after segment.
void fill_segments(const Plan& p, const Tile& tile, int64_t group, int64_t k0, int64_t k1,
                   char* block) {
  const SparseHeader& h = p.header;
  const void* rows[kMostTokens];
  for (int64_t k = k0; k < k1;) {
    const int64_t segment = k / h.cg, from = k % h.cg, to = min64(h.cg, from + k1 - k);
    const void* const* table = tile.tables;
    for (int first = 0; first < tile.tokens; first += kConvPixels) {
      const int tokens = tile.in_strip(first);
      for (int i = 0; i < tokens; ++i) rows[first + i] = table[segment * tokens + i];
      table += h.taps() * tokens;
    }
    p.call.kernel.tokens({rows, h.cg, group * h.cg, p.call.type, tile.tokens, 0, from, to, block});
    block += (to - from) * p.line();
    k += to - from;
  }
}

// Values [k0, k1) of the tile's tokens, and the zeros behind the block.
void fill_block(const Plan& p, const Tile& tile, int64_t group, int64_t k0, int64_t k1,
                char* block) {
  const SparseHeader& h = p.header;
  if (h.of_codes()) return fill_segments(p, tile, group, k0, k1, block);
  if (h.of_pairs()) {
    fill_segments(p, tile, group, k0, k1, block);
  } else {
    const void* const* rows = tile.tables;
    for (int first = 0; first < tile.tokens; first += kConvPixels) {
      const int tokens = tile.in_strip(first);
      p.call.kernel.tokens({rows, h.cg, group * h.cg, p.call.type, tokens, first, k0, k1, block});
      rows += h.taps() * tokens;
    }
  }
  std::memset(block + h.kc * p.line(), 0, static_cast<size_t>(p.line()));
}

// Outputs of a section of a group.
int rows_of(const SparseHeader& h, int64_t section) {
  return static_cast<int>(min64(kSectionRows, h.group_oc() - section * kSectionRows));
}

void run_columns(const Plan& p, const Tile& tile, const Columns& c, char* block, char* sums) {
  const SparseHeader& h = p.header;
  const char* packed = static_cast<const char*>(p.call.packed);
  for (int64_t b = 0; b < h.blocks(); ++b) {
    const int64_t k0 = b * h.kc;
    fill_block(p, tile, c.group, k0, min64(h.k(), k0 + h.kc), block);
    const int64_t* begins = sparse_begins(p.call.packed) + sparse_part(h, c.group, b, c.first);
    for (int64_t i = 0; i < c.count; ++i) {
      p.call.kernel.multiply({packed + begins[i], packed + begins[i + 1], block,
                              sums + i * p.section_bytes(), tile.tokens, b == 0,
                              rows_of(h, c.first + i)});
    }
  }
  for (int64_t i = 0; i < c.count; ++i) {
    const int64_t n0 = (c.first + i) * kSectionRows;
    p.call.kernel.finish({sums + i * p.section_bytes(), tile.tokens, rows_of(h, c.first + i),
                          tile.m0, c.group * h.group_oc() + n0, &p.call.epilogue});
  }
}

// One tile by columns [column, end).
void run_tile(const Plan& p, int64_t index, int64_t column, int64_t end, char* scratch) {
  const SparseHeader& h = p.header;
  const int64_t m0 = index * h.nr;
  const Tile tile = {m0, static_cast<int>(min64(h.nr, p.input.shape.pixels() - m0)),
                     reinterpret_cast<const void**>(scratch)};
  char* block = scratch + p.tables_bytes();
  fill_tables(p, tile);
  while (column < end) {
    const int64_t group = column / h.sections(), first = column % h.sections();
    const int64_t count = min64(min64(end - column, h.sections() - first), kMostSections);
    run_columns(p, tile, {group, first, count}, block, block + p.block_bytes());
    column += count;
  }
}

// Where each of `parts` threads begins, so that all have about the same bytes of entries.
std::vector<int64_t> balanced_columns(const Plan& p, int64_t parts) {
  if (parts == 1) return {0, p.columns};
  const SparseHeader& h = p.header;
  const int64_t* begins = sparse_begins(p.call.packed);
  std::vector<int64_t> starts = {0};
  const auto all = static_cast<double>(begins[h.parts()] - begins[0]);
  double before = 0;
  for (int64_t column = 0; column < p.columns; ++column) {
    const int64_t part = sparse_part(h, column / h.sections(), 0, column % h.sections());
    double own = 0;
    for (int64_t b = 0; b < h.blocks(); ++b) {
      const int64_t* at = begins + part + b * h.sections();
      own += static_cast<double>(at[1] - at[0]);
    }
    const double share = all * static_cast<double>(starts.size()) / static_cast<double>(parts);
    if (before + own / 2 > share && static_cast<int64_t>(starts.size()) < parts) {
      starts.push_back(column);
    }
    before += own;
  }
  while (static_cast<int64_t>(starts.size()) <= parts) starts.push_back(p.columns);
  return starts;
}

Grid split(const Plan& p) {
  const ConvShape& s = p.input.shape;
  const auto bytes = static_cast<double>(sparse_begins(p.call.packed)[p.header.parts()]);
  const double entries = bytes / (p.header.of_codes() ? 3 : p.header.of_pairs() ? 4 : 6);
  const double tile = static_cast<double>(p.header.nr) * entries / static_cast<double>(p.columns);
  return split_work({static_cast<int64_t>(static_cast<double>(s.pixels()) * entries), tile, p.tiles,
                     p.columns, 1.0 * s.n * s.h * s.w * s.c * p.input.element, bytes});
}

// The rows of x as few_rows takes them, with zeros up to a whole window: float32, or codes as u8.
const void* few_tokens(const Plan& p, int tokens, int64_t ldx) {
  static thread_local Buffer buffer;
  const bool codes = p.header.of_codes();
  const int64_t k = p.header.k(), row = ldx * (codes ? 1 : 4);
  char* all = static_cast<char*>(buffer.get(tokens * row));
  std::memset(all, 0, static_cast<size_t>(tokens * row));
  const void* rows[kMostFewTokens];
  fill_rows(p.input, 0, tokens, rows);
  for (int t = 0; t < tokens; ++t) {
    char* out = all + t * row;
    if (p.call.type == Dtype::bf16) {
      const auto* from = static_cast<const uint16_t*>(rows[t]);
      for (int64_t i = 0; i < k; ++i) reinterpret_cast<float*>(out)[i] = bf16_to_float(from[i]);
    } else if (p.call.type == Dtype::s8) {
      const auto* from = static_cast<const char*>(rows[t]);
      for (int64_t i = 0; i < k; ++i) out[i] = static_cast<char>(from[i] ^ 0x80);
    } else {
      std::memcpy(out, rows[t], static_cast<size_t>(k * p.input.element));
    }
  }
  return all;
}

// Below so many weights, times tokens, a second thread costs more than it saves.
constexpr int64_t kSerialFewWeights = 1 << 18;

// The strip where thread `part` of `parts` begins: all have about as many bytes.
int64_t few_cut(const FewLayout& few, const SparseFewRows& all, int64_t part, int64_t parts) {
  const auto before = [&](int64_t strip) {
    const double masks = static_cast<double>(strip) * static_cast<double>(few.mask_bytes());
    return masks + static_cast<double>(all.begins[strip]);
  };
  const double share = before(few.strips) * static_cast<double>(part) / static_cast<double>(parts);
  int64_t low = 0, high = few.strips;
  if (part == 0) return low;  // whatever damaged bytes say
  if (part == parts) low = high;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    before(middle) < share ? low = middle + 1 : high = middle;
  }
  return low;
}

void run_few(const Plan& p) {
  const char* packed = static_cast<const char*>(p.call.packed);
  const SparseHeader& h = p.header;
  const FewLayout few = few_layout(packed);
  const int tokens = static_cast<int>(p.input.shape.pixels());
  const int64_t ldx = few.windows * few.window;
  const SparseFewRows all = {reinterpret_cast<const int64_t*>(packed + few.begins),
                             packed + few.masks,
                             packed + few.values,
                             packed + few.values + few.value_bytes(h),
                             static_cast<Dtype>(h.type),
                             few_tokens(p, tokens, ldx),
                             ldx,
                             few.windows,
                             tokens,
                             0,
                             few.strips,
                             h.oc,
                             &p.call.epilogue};
  const int64_t threads = h.oc * h.k() * tokens < kSerialFewWeights ? 1 : num_threads();
  const int64_t parts = min64(threads, few.strips);
  parallel_range(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      SparseFewRows own = all;
      own.first = few_cut(few, all, i, parts), own.last = few_cut(few, all, i + 1, parts);
      p.call.kernel.few_rows(own);
    }
  });
}

}  // namespace

void run_sparse(const SparseCall& call) {
  static thread_local Buffer scratch, zeros;
  const SparseHeader& h = sparse_header(call.packed);
  const ConvShape& s = call.shape;
  const int64_t element = dtype_bytes(call.type);
  const char* x = static_cast<const char*>(call.x);
  void* zero = zeros.get(s.c * element);
  std::memset(zero, call.padding, static_cast<size_t>(s.c * element));
  const Plan p = {call,
                  h,
                  {s, x, element, x + s.n * s.h * s.w * s.c * element,
                   static_cast<const char*>(zero), false, false},
                  (s.pixels() + h.nr - 1) / h.nr,
                  h.groups * h.sections()};
  if (h.few && s.pixels() <= call.kernel.few) return run_few(p);
  const Grid grid = split(p);
  const std::vector<int64_t> columns = balanced_columns(p, grid.tn);
  const int64_t bytes = p.scratch_bytes();
  char* own = static_cast<char*>(scratch.get(grid.tm * grid.tn * bytes));
  parallel_range(grid.tm * grid.tn, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      // Damaged items may point anywhere in it: not to what another call left.
      std::memset(own + i * bytes + p.tables_bytes(), 0, static_cast<size_t>(p.block_bytes()));
      const int64_t last = grid.row_end(i, p.tiles), part = i % grid.tn;
      for (int64_t tile = grid.row(i, p.tiles); tile < last; ++tile) {
        run_tile(p, tile, columns[part], columns[part + 1], own + i * bytes);
      }
    }
  });
}

}  // namespace pyops::cpu
