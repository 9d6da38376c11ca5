#include "cpu/int8_gemm/pack.h"

#include <cstring>

#include "cpu/int8_gemm/cut.h"

namespace pyops::cpu {
namespace {

constexpr char kMagic[8] = {'p', 'y', 'o', 'p', 's', 'I', '8', '\0'};
constexpr int32_t kVersion = 2;

struct Panel {
  int64_t n0, cols, depth;
  int kr;
};

Panel panel_of(const PackedHeader& h, int64_t index) {
  const int64_t n0 = index * h.nr;
  return {n0, min64(h.nr, h.n - n0), packed_depth(h.k, h.kr), h.kr};
}

void read_group(const int8_t* w, int64_t cols, int64_t k0, int64_t k, CutGroup* group) {
  for (int64_t col = 0; col < cols; ++col) {
    for (int i = 0; i < 4; ++i) group->w[i][col] = k0 + i < k ? w[col * k + k0 + i] : 0;
  }
}

template <class To, class From>
void convert_row(const From* from, int64_t k, int shift, To* to, int64_t k_padded) {
  for (int64_t i = 0; i < k; ++i) to[i] = static_cast<To>(from[i] + shift);
  for (int64_t i = k; i < k_padded; ++i) to[i] = 0;
}

template <class From>
void convert_row(const From* from, int64_t k, bool is_signed, Codes codes, void* to,
                 int64_t k_padded) {
  switch (codes) {
    case Codes::s16: return convert_row(from, k, 0, static_cast<int16_t*>(to), k_padded);
    case Codes::u8:
      return convert_row(from, k, is_signed ? 128 : 0, static_cast<uint8_t*>(to), k_padded);
    case Codes::u8x4: {
      // The last quarter holds the plain codes until their strings reach it.
      uint8_t* codes = static_cast<uint8_t*>(to) + 3 * k_padded;
      convert_row(from, k, is_signed ? 128 : 0, codes, k_padded);
      for (int64_t i = 0; i < k_padded; i += 4) {
        uint8_t four[4];
        std::memcpy(four, codes + i, 4);
        write_strings(four, static_cast<uint8_t*>(to) + 4 * i);
      }
      return;
    }
    default: return convert_row(from, k, is_signed ? 0 : -128, static_cast<int8_t*>(to), k_padded);
  }
}

int32_t sum_of(const int8_t* row, int64_t k) {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += row[i];
  return sum;
}

void pack_panel(const Panel& p, const int8_t* w, int64_t k, int8_t* out) {
  for (int64_t col = 0; col < p.cols; ++col) {
    const int8_t* row = w + (p.n0 + col) * k;
    for (int64_t k0 = 0; k0 < p.depth; k0 += p.kr) {
      const int64_t present = min64(p.kr, k - k0);
      int8_t* group = out + k0 * p.cols + col * p.kr;
      for (int i = 0; i < p.kr; ++i) group[i] = i < present ? row[k0 + i] : 0;
    }
  }
}

// The parts of PackedCut are const for readers; they belong to the bytes being packed.
void pack_cut_panel(const Panel& p, const int8_t* w, int64_t k, int64_t index, const PackedCut& cut,
                    int8_t* out) {
  uint8_t* windows = const_cast<uint8_t*>(cut.windows) + index * window_bytes(k);
  int32_t* start = const_cast<int32_t*>(cut.start) + p.n0;
  Excess* excess = const_cast<Excess*>(cut.excess_at(index));
  CutGroup group = {};
  for (int64_t k0 = 0; k0 < p.depth; k0 += 4, out += 4 * p.cols) {
    read_group(w + p.n0 * k, p.cols, k0, k, &group);
    int count;
    const int window = best_window(group, &count);
    windows[k0 / 8] |= static_cast<uint8_t>(window << k0 % 8);
    for (int64_t col = 0; col < p.cols; ++col) {
      const CutFour c = cut_four(group, col, window);
      std::memcpy(out + 4 * col, c.stored, 4);
      for (int i = 0; i < 4; ++i) {
        if (string_flips(window + i)) start[col] -= 255 * c.stored[i];
        if (c.excess[i] == 0) continue;
        *excess++ = {static_cast<uint16_t>(k0 + i), static_cast<uint8_t>(col),
                     static_cast<int8_t>(c.excess[i])};
      }
    }
  }
}

void unpack_cut_panel(const Panel& p, int64_t k, int64_t index, const PackedCut& cut,
                      const int8_t* in, int8_t* w) {
  const uint8_t* windows = cut.windows + index * window_bytes(k);
  for (int64_t k0 = 0; k0 < p.depth; k0 += 4, in += 4 * p.cols) {
    const int window = windows[k0 / 8] >> k0 % 8 & 15;
    for (int64_t col = 0; col < p.cols; ++col) {
      for (int i = 0; i < 4; ++i) {
        const int64_t at = k0 + string_k(window + i);
        const int stored = in[4 * col + i];
        if (at < k)
          w[col * k + at] = static_cast<int8_t>(string_flips(window + i) ? -stored : stored);
      }
    }
  }
  const Excess* end = cut.excess_at(index + 1);
  for (const Excess* e = cut.excess_at(index); e < end; ++e) {
    if (e->col >= p.cols || e->k >= k) continue;  // damaged
    int8_t* to = w + e->col * k + e->k;
    *to = static_cast<int8_t>(*to + e->value);
  }
}

}  // namespace

const char* packed_problem(const void* packed, int64_t bytes) {
  if (bytes < 64) return "shorter than its header of 64 bytes";
  const PackedHeader& h = packed_header(packed);
  if (std::memcmp(h.magic, kMagic, 8) != 0) return "not made by int8_pack (no header)";
  if (h.version != kVersion) return "made by another version of int8_pack";
  const bool plain = h.nr == 0 && h.kr == 0;
  if (h.n < 0 || h.k < 0 || (!plain && (h.nr < 1 || h.kr < 1))) return "its header is damaged";
  const bool cut = h.cut == 1 && h.kr == 4 && h.nr <= kMaxCutCols && h.excess >= 0;
  if (!cut && (h.cut != 0 || h.excess != 0)) return "its header is damaged";
  // Bounds first: the product of damaged sizes could wrap around to the right length.
  if (h.n > bytes || h.k > kMaxK || h.kr > kDepthStep || h.nr > 4096 || h.excess > bytes)
    return "its header is damaged";
  if (bytes != packed_bytes(h.n, h.k, {h.nr, h.kr, cut}, h.excess))
    return "its length contradicts its header";
  return nullptr;
}

void count_cuts(const int8_t* w, int64_t n, int64_t k, int nr, int64_t first, int64_t last,
                int32_t* counts) {
  for (int64_t index = first; index < last; ++index) {
    const int64_t n0 = index * nr, cols = min64(nr, n - n0);
    CutGroup group = {};
    counts[index] = 0;
    for (int64_t k0 = 0; k0 < k; k0 += 4) {
      read_group(w + n0 * k, cols, k0, k, &group);
      int count;
      best_window(group, &count);
      counts[index] += count;
    }
  }
}

void pack_header(void* packed, int64_t n, int64_t k, const PackedLayout& layout,
                 const int32_t* first_excess) {
  const int64_t panels = packed_panels(n, layout.nr);
  PackedHeader h = {};
  std::memcpy(h.magic, kMagic, 8);
  h.version = kVersion;
  h.nr = layout.nr;
  h.kr = layout.kr;
  h.cut = layout.cut;
  h.n = n;
  h.k = k;
  if (layout.cut) h.excess = first_excess[panels];
  char* bytes = static_cast<char*>(packed);
  std::memcpy(bytes, &h, sizeof h);
  const int64_t begin = packed_panels_at(n, layout.cut), end = packed_bytes(n, k, layout, h.excess);
  const int64_t used = begin + n * packed_depth(k, layout.kr);
  std::memset(bytes + 64, 0, begin - 64);
  std::memset(bytes + used, 0, end - used);
  if (!layout.cut) return;
  std::memcpy(const_cast<int32_t*>(packed_cut(packed).first), first_excess, 4 * (panels + 1));
}

void pack_panels(void* packed, const int8_t* w, int64_t first, int64_t last) {
  const PackedHeader& h = packed_header(packed);
  for (int64_t index = first; index < last; ++index) {
    const Panel p = panel_of(h, index);
    int8_t* out = const_cast<int8_t*>(packed_panel(packed, p.n0));
    int32_t* sums = const_cast<int32_t*>(packed_sums(packed));
    for (int64_t n = p.n0; n < p.n0 + p.cols; ++n) sums[n] = sum_of(w + n * h.k, h.k);
    if (h.cut) {
      pack_cut_panel(p, w, h.k, index, packed_cut(packed), out);
    } else {
      pack_panel(p, w, h.k, out);
    }
  }
}

void unpack(const void* packed, int8_t* w) {
  const PackedHeader& h = packed_header(packed);
  if (h.nr == 0) {
    std::memcpy(w, static_cast<const char*>(packed) + 64, h.n * h.k);
    return;
  }
  for (int64_t index = 0; index * h.nr < h.n; ++index) {
    const Panel p = panel_of(h, index);
    const int8_t* in = packed_panel(packed, p.n0);
    if (h.cut) {
      unpack_cut_panel(p, h.k, index, packed_cut(packed), in, w + p.n0 * h.k);
      continue;
    }
    for (int64_t col = 0; col < p.cols; ++col) {
      int8_t* row = w + (p.n0 + col) * h.k;
      for (int64_t k = 0; k < h.k; k += p.kr) {
        const int64_t present = min64(p.kr, h.k - k);
        std::memcpy(row + k, in + k * p.cols + col * p.kr, present);
      }
    }
  }
}

void prepare_codes(const void* a, bool is_signed, int64_t lda, int64_t rows, int64_t k, Codes codes,
                   void* out, int64_t k_padded) {
  for (int64_t r = 0; r < rows; ++r) {
    void* to = static_cast<char*>(out) + r * k_padded * code_bytes(codes);
    if (is_signed) {
      convert_row(static_cast<const int8_t*>(a) + r * lda, k, true, codes, to, k_padded);
    } else {
      convert_row(static_cast<const uint8_t*>(a) + r * lda, k, false, codes, to, k_padded);
    }
  }
}

}  // namespace pyops::cpu
