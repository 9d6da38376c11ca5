#include "cpu/sparse_gemm/few_rows.h"

#include <cstring>

namespace pyops::cpu {
namespace {

// Whether the value with these bits is not 0; NaN is not.
inline bool is_entry(uint32_t bits) { return (bits << 1) != 0; }
inline bool is_entry(uint16_t bits) { return (bits & 0x7fff) != 0; }
inline bool is_entry(int8_t code) { return code != 0; }

template <class Mask, class Bits>
int64_t pack_strip(const SparseHeader& h, const Bits* w, int64_t strip, char* masks, char* values) {
  constexpr int64_t kWindow = 8 * sizeof(Mask);
  const int64_t k = h.k(), first = strip * kFewStrip;
  int64_t bytes = 0;
  for (int64_t window = 0; window < k; window += kWindow) {
    for (int64_t row = first; row < first + kFewStrip; ++row) {
      Mask mask = 0;
      const int64_t end = row < h.oc ? min64(k, window + kWindow) : window;
      for (int64_t i = window; i < end; ++i) {
        const Bits value = w[row * k + i];
        if (!is_entry(value)) continue;
        mask = static_cast<Mask>(mask | Mask{1} << (i - window));
        if (values) std::memcpy(values + bytes, &value, sizeof value);
        bytes += sizeof value;
      }
      if (!masks) continue;
      std::memcpy(masks, &mask, sizeof mask);
      masks += sizeof mask;
    }
  }
  return bytes;
}

template <class Bits>
void refresh_strip(const SparseHeader& h, int64_t strip, const char* masks, char* values, char* end,
                   const SparseMatrix& from) {
  const auto* w = static_cast<const Bits*>(from.data);
  for (int64_t window = 0; window < h.k(); window += kFewWindow) {
    for (int64_t row = strip * kFewStrip; row < (strip + 1) * kFewStrip; ++row) {
      uint16_t mask;
      std::memcpy(&mask, masks, sizeof mask);
      masks += sizeof mask;
      for (; mask != 0; mask = static_cast<uint16_t>(mask & (mask - 1))) {
        const int64_t k = window + __builtin_ctz(mask);
        if (row >= h.oc || k >= h.k() || values == end) return;  // damaged
        std::memcpy(values, w + from.place(h, row, k), sizeof(Bits));
        values += sizeof(Bits);
      }
    }
  }
}

}  // namespace

int64_t pack_few(const SparseHeader& h, const void* w, int64_t strip, char* masks, char* values) {
  if (h.of_codes()) {
    return pack_strip<uint64_t>(h, static_cast<const int8_t*>(w), strip, masks, values);
  }
  if (static_cast<Dtype>(h.type) == Dtype::bf16) {
    return pack_strip<uint16_t>(h, static_cast<const uint16_t*>(w), strip, masks, values);
  }
  return pack_strip<uint16_t>(h, static_cast<const uint32_t*>(w), strip, masks, values);
}

void refresh_few(void* packed, int64_t first, int64_t last, const SparseMatrix& from) {
  const SparseHeader& h = sparse_header(packed);
  char* all = static_cast<char*>(packed);
  const FewLayout few = few_layout(packed);
  const auto* begins = reinterpret_cast<const int64_t*>(all + few.begins);
  const int64_t most = few.value_bytes(h);
  const bool small = static_cast<Dtype>(h.type) == Dtype::bf16;
  for (int64_t strip = first; strip < last; ++strip) {
    const int64_t at = begins[strip];
    if (at < 0 || at > most) continue;  // damaged
    const int64_t bytes = (most - at) / (small ? 2 : 4) * (small ? 2 : 4);
    char *values = all + few.values + at, *end = values + bytes;
    const char* masks = all + few.masks + strip * few.mask_bytes();
    small ? refresh_strip<uint16_t>(h, strip, masks, values, end, from)
          : refresh_strip<uint32_t>(h, strip, masks, values, end, from);
  }
}

const char* few_problem(const void* packed, int64_t bytes) {
  const SparseHeader& h = sparse_header(packed);
  if (!few_rows_possible(h)) return "its header is damaged";
  // The table of the last strip ends below 2^46 + 2^46 bytes: nothing wraps around.
  return few_layout(packed).bytes(0) <= bytes ? nullptr : "its length contradicts its header";
}

}  // namespace pyops::cpu
