#include "cpu/int8_gemm/pack.h"

#include <cstring>

namespace pyops::cpu {
namespace {

constexpr char kMagic[8] = {'p', 'y', 'o', 'p', 's', 'I', '8', '\0'};
constexpr int32_t kVersion = 1;

struct Panel {
  int64_t n0, cols, depth;
  int kr;
};

Panel panel_of(const PackedHeader& h, int64_t index) {
  const int64_t n0 = index * h.nr;
  return {n0, min64(h.nr, h.n - n0), packed_depth(h.k, h.kr), h.kr};
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
    default: return convert_row(from, k, is_signed ? 0 : -128, static_cast<int8_t*>(to), k_padded);
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
  // Bounds first: the product of damaged sizes could wrap around to the right length.
  if (h.n > bytes || h.k > kMaxK || h.kr > kDepthStep || h.nr > 4096)
    return "its header is damaged";
  if (bytes != packed_bytes(h.n, h.k, h.nr, h.kr)) return "its length contradicts its header";
  return nullptr;
}

void pack_header(void* packed, int64_t n, int64_t k, int nr, int kr) {
  PackedHeader h = {};
  std::memcpy(h.magic, kMagic, 8);
  h.version = kVersion;
  h.nr = nr;
  h.kr = kr;
  h.n = n;
  h.k = k;
  char* bytes = static_cast<char*>(packed);
  std::memcpy(bytes, &h, sizeof h);
  std::memset(bytes + 64, 0, packed_sums_bytes(n));
  const int64_t used = 64 + packed_sums_bytes(n) + n * packed_depth(k, kr);
  std::memset(bytes + used, 0, packed_bytes(n, k, nr, kr) - used);
}

void pack_panels(void* packed, const int8_t* w, int64_t first, int64_t last) {
  const PackedHeader& h = packed_header(packed);
  for (int64_t index = first; index < last; ++index) {
    const Panel p = panel_of(h, index);
    int8_t* out = const_cast<int8_t*>(packed_panel(packed, p.n0));
    int32_t* sums = const_cast<int32_t*>(packed_sums(packed)) + p.n0;
    for (int64_t col = 0; col < p.cols; ++col) {
      const int8_t* row = w + (p.n0 + col) * h.k;
      int32_t sum = 0;
      for (int64_t k = 0; k < h.k; ++k) sum += row[k];
      sums[col] = sum;
      for (int64_t k = 0; k < p.depth; k += p.kr) {
        const int64_t present = min64(p.kr, h.k - k);
        int8_t* group = out + k * p.cols + col * p.kr;
        for (int i = 0; i < p.kr; ++i) group[i] = i < present ? row[k + i] : 0;
      }
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
