#include "cpu/weight_only/pack.h"

#include <cstring>

namespace pyops::cpu {
namespace {

constexpr char kMagic[8] = {'p', 'y', 'o', 'p', 's', 'W', 'O', '\0'};
constexpr int32_t kVersion = 1;

struct Panel {
  int64_t n0, cols;
};

Panel panel_of(const WeightHeader& h, int64_t index) {
  const int64_t n0 = index * h.nr;
  return {n0, min64(h.nr, h.n - n0)};
}

// What is stored for code q: with zero points q - 8, so that the four bits are signed either way.
int offset_of(const WeightHeader& h) { return h.zeros ? 8 : 0; }

int signed_nibble(uint32_t bits) { return static_cast<int>((bits & 15) ^ 8) - 8; }

void pack_int8(const Panel& p, const PlainWeight& w, int64_t k, uint8_t* out) {
  for (int64_t col = 0; col < p.cols; ++col) {
    const int8_t* row = w.codes + (p.n0 + col) * k;
    for (int64_t i = 0; i < k; ++i) out[i * p.cols + col] = static_cast<uint8_t>(row[i]);
  }
}

uint32_t word_of(const int8_t* codes, int64_t count, int offset) {
  uint32_t word = 0;
  for (int64_t i = 0; i < count; ++i) {
    word |= static_cast<uint32_t>((codes[i] - offset) & 15) << 4 * i;
  }
  return word;
}

void pack_int4(const Panel& p, const PlainWeight& w, const WeightHeader& h, uint8_t* out) {
  const int64_t groups = group_count(h.k, h.group);
  const int offset = offset_of(h);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t k0 = g * h.group, depth = min64(h.group, h.k - k0);
    const GroupParts parts = group_parts(depth, p.cols, h.zeros);
    for (int64_t col = 0; col < p.cols; ++col) {
      const int64_t n = p.n0 + col;
      for (int64_t i = 0; i < depth; i += 8) {
        const uint32_t word = word_of(w.codes + n * h.k + k0 + i, min64(8, depth - i), offset);
        std::memcpy(out + (i / 8 * p.cols + col) * 4, &word, 4);
      }
      std::memcpy(out + parts.scale + col * 4, w.scale + n * groups + g, 4);
      if (h.zeros) out[parts.zero + col] = static_cast<uint8_t>(w.zero[n * groups + g] - offset);
    }
    if (h.zeros) std::memset(out + parts.zero + p.cols, 0, round_up(p.cols, 4) - p.cols);
    out += parts.bytes;
  }
}

void unpack_int4(const Panel& p, const PlainWeight& w, const WeightHeader& h, const uint8_t* in) {
  const int64_t groups = group_count(h.k, h.group);
  const int offset = offset_of(h);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t k0 = g * h.group, depth = min64(h.group, h.k - k0);
    const GroupParts parts = group_parts(depth, p.cols, h.zeros);
    for (int64_t col = 0; col < p.cols; ++col) {
      const int64_t n = p.n0 + col;
      for (int64_t i = 0; i < depth; ++i) {
        uint32_t word;
        std::memcpy(&word, in + (i / 8 * p.cols + col) * 4, 4);
        w.codes[n * h.k + k0 + i] = static_cast<int8_t>(signed_nibble(word >> i % 8 * 4) + offset);
      }
      std::memcpy(w.scale + n * groups + g, in + parts.scale + col * 4, 4);
      if (h.zeros) w.zero[n * groups + g] = static_cast<uint8_t>(in[parts.zero + col] + offset);
    }
    in += parts.bytes;
  }
}

void unpack_plain(const WeightHeader& h, const PlainWeight& w, const uint8_t* in) {
  if (h.bits == 8) {
    std::memcpy(w.codes, in, h.n * h.k);
    return;
  }
  const int64_t groups = group_count(h.k, h.group), row_bytes = (h.k + 1) / 2;
  std::memcpy(w.scale, in, h.n * groups * 4);
  in += h.n * groups * 4;
  for (int64_t n = 0; n < h.n; ++n, in += row_bytes) {
    for (int64_t k = 0; k < h.k; ++k) {
      const uint32_t half = in[k / 2] >> k % 2 * 4;
      w.codes[n * h.k + k] = static_cast<int8_t>(h.zeros ? half & 15 : signed_nibble(half));
    }
  }
  if (h.zeros) std::memcpy(w.zero, in, h.n * groups);
}

bool known_format(const WeightHeader& h) {
  if (h.bits == 8) return h.group == 0 && h.zeros == 0;
  const bool group = h.group == 32 || h.group == 64 || h.group == 128;
  return h.bits == 4 && group && (h.zeros == 0 || h.zeros == 1);
}

}  // namespace

const char* weight_problem(const void* packed, int64_t bytes) {
  if (bytes < 64) return "shorter than its header of 64 bytes";
  const WeightHeader& h = weight_header(packed);
  if (std::memcmp(h.magic, kMagic, 8) != 0) return "not made by a weight-only pack (no header)";
  if (h.version != kVersion) return "made by another version of pyops";
  if (!known_format(h)) return "its header is damaged";
  // Bounds first: the product of damaged sizes could wrap around to the right length.
  const bool sizes = h.n >= 0 && h.k >= 0 && h.nr >= 0 && h.nr <= 4096;
  if (!sizes || (h.n > 0 && h.k / 2 > bytes / h.n) || h.n > INT32_MAX || h.k > INT32_MAX)
    return "its header is damaged";
  if (bytes != weight_bytes(h.n, h.k, h.nr, format_of(h)))
    return "its length contradicts its header";
  return nullptr;
}

void weight_header(void* packed, int64_t n, int64_t k, int nr, const WeightFormat& format) {
  WeightHeader h = {};
  std::memcpy(h.magic, kMagic, 8);
  h.version = kVersion;
  h.nr = nr;
  h.bits = format.bits;
  h.group = format.group;
  h.n = n;
  h.k = k;
  h.zeros = format.zeros;
  char* bytes = static_cast<char*>(packed);
  std::memcpy(bytes, &h, sizeof h);
  const int64_t used = 64 + n / nr * panel_bytes(nr, k, format) + panel_bytes(n % nr, k, format);
  std::memset(bytes + used, 0, weight_bytes(n, k, nr, format) - used);
}

void pack_weight(void* packed, const PlainWeight& w, int64_t first, int64_t last) {
  const WeightHeader& h = weight_header(packed);
  for (int64_t index = first; index < last; ++index) {
    const Panel p = panel_of(h, index);
    uint8_t* out = const_cast<uint8_t*>(weight_panel(packed, p.n0));
    if (h.bits == 8) {
      pack_int8(p, w, h.k, out);
    } else {
      pack_int4(p, w, h, out);
    }
  }
}

void unpack_weight(const void* packed, const PlainWeight& w) {
  const WeightHeader& h = weight_header(packed);
  if (h.nr == 0) return unpack_plain(h, w, static_cast<const uint8_t*>(packed) + 64);
  for (int64_t index = 0; index * h.nr < h.n; ++index) {
    const Panel p = panel_of(h, index);
    const uint8_t* in = weight_panel(packed, p.n0);
    if (h.bits == 4) {
      unpack_int4(p, w, h, in);
      continue;
    }
    for (int64_t col = 0; col < p.cols; ++col) {
      int8_t* row = w.codes + (p.n0 + col) * h.k;
      for (int64_t k = 0; k < h.k; ++k) row[k] = static_cast<int8_t>(in[k * p.cols + col]);
    }
  }
}

}  // namespace pyops::cpu
