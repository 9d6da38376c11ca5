#include "cpu/masked_matmul/pack.h"

#include <cstring>

namespace pyops::cpu {
namespace {

constexpr char kMagic[8] = {'p', 'y', 'o', 'p', 's', 'M', 'M', '\0'};
constexpr int32_t kVersion = 1;
constexpr int kMostQuads = kMaskedDepth / kQuad;

const int64_t* first_of(const void* packed) {
  return reinterpret_cast<const int64_t*>(static_cast<const char*>(packed) + 64);
}
const MaskedRow* rows_of(const void* packed) {
  const MaskedHeader& h = masked_header(packed);
  return reinterpret_cast<const MaskedRow*>(first_of(packed) + masked_sections(h.n, h.k) + 1);
}
const uint8_t* depths_of(const void* packed) {
  const MaskedHeader& h = masked_header(packed);
  return reinterpret_cast<const uint8_t*>(rows_of(packed) + masked_col_blocks(h.k) * h.n);
}

// Rows of a section by their quads, fewest first.
void sort_rows(const uint8_t* quads, int64_t count, MaskedRow* rows) {
  int64_t at[kMostQuads + 1] = {};
  for (int64_t r = 0; r < count; ++r) {
    if (quads[r] < kMostQuads) ++at[quads[r] + 1];
  }
  for (int q = 1; q <= kMostQuads; ++q) at[q] += at[q - 1];
  for (int64_t r = 0; r < count; ++r) {
    rows[at[quads[r]]++] = {static_cast<uint8_t>(r), quads[r]};
  }
}

// The columns that a row keeps, up to a whole quad; returns where the next row's begin.
uint8_t* write_depths(const uint8_t* mask, int64_t cols, uint8_t* to) {
  uint8_t kept[kMaskedDepth + 1];
  int count = 0;
  for (int64_t c = 0; c < cols; ++c) {
    kept[count] = static_cast<uint8_t>(c);
    count += mask[c] != 0;
  }
  if (count == 0) return to;
  std::memcpy(to, kept, count);
  for (; count % kQuad != 0; ++count) to[count] = to[count - 1];
  return to + count;
}

bool known_sizes(const MaskedHeader& h, int64_t bytes) {
  if (h.n < 0 || h.k < 0 || h.n > INT32_MAX || h.k > INT32_MAX || h.quads < 0) return false;
  // Each row takes two bytes or more in each block of columns: no product below wraps around.
  const int64_t cols = h.sections ? masked_col_blocks(h.k) : h.k;
  return (cols == 0 || h.n <= bytes / cols) && h.quads <= bytes / kQuad;
}

bool known_first(const void* packed, int64_t sections, int64_t quads) {
  const int64_t* first = first_of(packed);
  if (first[0] != 0 || first[sections] != quads) return false;
  for (int64_t s = 0; s < sections; ++s) {
    if (first[s] > first[s + 1] || first[s + 1] - first[s] > kMaskedRows * kMostQuads) return false;
  }
  return true;
}

}  // namespace

const char* masked_problem(const void* packed, int64_t bytes) {
  const char* damaged = "its header is damaged";
  if (bytes < 64) return "shorter than its header of 64 bytes";
  const MaskedHeader& h = masked_header(packed);
  if (std::memcmp(h.magic, kMagic, 8) != 0) return "not made by masked_pack (no header)";
  if (h.version != kVersion) return "made by another version of pyops";
  if (h.sections != 0 && h.sections != 1) return damaged;
  if (!known_sizes(h, bytes)) return damaged;
  const int64_t expected = h.sections ? masked_bytes(h.n, h.k, h.quads) : 64 + h.n * h.k;
  if (bytes != expected) return "its length contradicts its header";
  if (h.sections && !known_first(packed, masked_sections(h.n, h.k), h.quads)) return damaged;
  return nullptr;
}

MaskedSection masked_section(const void* packed, int64_t s) {
  const MaskedHeader& h = masked_header(packed);
  const int64_t* first = first_of(packed);
  const MaskedPlace place = masked_place(h.n, h.k, s);
  const MaskedRow* rows = rows_of(packed) + place.col / kMaskedDepth * h.n + place.row;
  return {rows, place.rows, depths_of(packed) + kQuad * first[s], first[s + 1] - first[s],
          place.cols};
}

bool masked_section_fits(const MaskedSection& section) {
  int64_t quads = 0, depth = 0, different = 0;
  bool seen[kMaskedRows] = {};
  for (int64_t r = 0; r < section.count; ++r) {
    const MaskedRow& row = section.rows[r];
    quads += row.quads;
    different += row.row < section.count && !seen[row.row];
    seen[row.row] = true;
  }
  for (int64_t i = 0; i < section.quads * kQuad; ++i) depth = max64(depth, section.depths[i]);
  return quads == section.quads && different == section.count && depth < section.cols;
}

void count_masked_quads(const uint8_t* mask, int64_t n, int64_t k, int64_t begin, int64_t end,
                        uint8_t* quads) {
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t col = 0; col < k; col += kMaskedDepth) {
      int count = 0;
      const int64_t cols = min64(kMaskedDepth, k - col);
      for (int64_t c = 0; c < cols; ++c) count += mask[row * k + col + c] != 0;
      quads[col / kMaskedDepth * n + row] = static_cast<uint8_t>((count + kQuad - 1) / kQuad);
    }
  }
}

int64_t sum_masked_quads(const uint8_t* quads, int64_t n, int64_t k) {
  int64_t sum = 0;
  for (int64_t i = 0; i < masked_col_blocks(k) * n; ++i) sum += quads[i];
  return sum;
}

void write_masked_header(const uint8_t* quads, int64_t n, int64_t k, void* packed) {
  MaskedHeader h = {};
  std::memcpy(h.magic, kMagic, 8);
  h.version = kVersion;
  h.sections = 1;
  h.n = n;
  h.k = k;
  std::memcpy(packed, &h, sizeof h);
  int64_t* first = const_cast<int64_t*>(first_of(packed));
  const int64_t sections = masked_sections(n, k);
  first[0] = 0;
  for (int64_t s = 0; s < sections; ++s) {
    const MaskedPlace place = masked_place(n, k, s);
    const uint8_t* own = quads + place.col / kMaskedDepth * n + place.row;
    first[s + 1] = first[s];
    for (int64_t r = 0; r < place.rows; ++r) first[s + 1] += own[r];
  }
  static_cast<MaskedHeader*>(packed)->quads = first[sections];
  const auto* bytes = static_cast<const uint8_t*>(packed);
  const int64_t used = depths_of(packed) - bytes + kQuad * first[sections];
  std::memset(static_cast<uint8_t*>(packed) + used, 0, masked_bytes(n, k, first[sections]) - used);
}

void pack_masked(const uint8_t* mask, const uint8_t* quads, int64_t begin, int64_t end,
                 void* packed) {
  const MaskedHeader& h = masked_header(packed);
  for (int64_t s = begin; s < end; ++s) {
    const MaskedPlace place = masked_place(h.n, h.k, s);
    const MaskedSection section = masked_section(packed, s);
    sort_rows(quads + place.col / kMaskedDepth * h.n + place.row, place.rows,
              const_cast<MaskedRow*>(section.rows));
    uint8_t* to = const_cast<uint8_t*>(section.depths);
    for (int64_t r = 0; r < place.rows; ++r) {
      const int64_t row = place.row + section.rows[r].row;
      to = write_depths(mask + row * h.k + place.col, place.cols, to);
    }
  }
}

void unpack_masked(const void* packed, uint8_t* mask) {
  const MaskedHeader& h = masked_header(packed);
  if (h.sections == 0) {
    const uint8_t* bytes = static_cast<const uint8_t*>(packed) + 64;
    for (int64_t i = 0; i < h.n * h.k; ++i) mask[i] = bytes[i] != 0;
    return;
  }
  std::memset(mask, 0, h.n * h.k);
  for (int64_t s = 0; s < masked_sections(h.n, h.k); ++s) {
    const MaskedPlace place = masked_place(h.n, h.k, s);
    const MaskedSection section = masked_section(packed, s);
    const uint8_t* depths = section.depths;
    for (int64_t r = 0; r < section.count; ++r) {
      uint8_t* row = mask + (place.row + section.rows[r].row) * h.k + place.col;
      for (int i = section.rows[r].quads * kQuad; i > 0; --i) row[*depths++] = 1;
    }
  }
}

}  // namespace pyops::cpu
