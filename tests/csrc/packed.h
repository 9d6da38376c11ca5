// A weight packed for one kernel, and codes in the form of one.
#pragma once
#include <cstring>
#include <vector>

#include "cpu/int8_gemm/cut.h"
#include "cpu/int8_gemm/pack.h"
#include "guarded.h"

using namespace pyops::cpu;

struct Packed {
  Packed(const Int8GemmKernel& kernel, const int8_t* w, int64_t n, int64_t k)
      : panels(packed_panels(n, kernel.nr)),
        first(count(kernel, w, n, k)),
        bytes(packed_bytes(n, k, layout_of(kernel), first.back()), 64) {
    pack_header(bytes.get(), n, k, layout_of(kernel), first.data());
    pack_panels(bytes.get(), w, 0, panels);
  }
  std::vector<int32_t> count(const Int8GemmKernel& kernel, const int8_t* w, int64_t n, int64_t k) {
    std::vector<int32_t> counts(panels + 1);
    if (kernel.cut) count_cuts(w, n, k, kernel.nr, 0, panels, counts.data() + 1);
    for (int64_t i = 0; i < panels; ++i) counts[i + 1] += counts[i];
    return counts;
  }
  int64_t panels;
  std::vector<int32_t> first;
  Guarded<char> bytes;
};

// Random bits in all that a cut layout has beside its weights.
inline void damage(const Packed& packed) {
  const PackedHeader& h = packed_header(packed.bytes.get());
  const PackedCut cut = packed_cut(packed.bytes.get());
  const int64_t at = reinterpret_cast<const char*>(cut.windows) - packed.bytes.get();
  for (int64_t i = at; i < packed.bytes.count(); ++i) {
    packed.bytes[i] = static_cast<char>(coin() ? rng() : 0);
  }
  if (packed_problem(packed.bytes.get(), packed.bytes.count())) std::abort();
  Guarded<int8_t> w(h.n * h.k);
  unpack(packed.bytes.get(), w.get());
}

// Code i of a row in the kernel's form, and whether all its copies agree.
inline int32_t read_code(Codes codes, const char* q, int64_t i, bool* agree) {
  if (codes == Codes::s16) return reinterpret_cast<const int16_t*>(q)[i];
  if (codes == Codes::s8) return reinterpret_cast<const int8_t*>(q)[i];
  const uint8_t* u8 = reinterpret_cast<const uint8_t*>(q);
  if (codes == Codes::u8) return u8[i];
  const uint8_t* group = u8 + i / 4 * 16;
  for (int byte = 0; byte < 16; ++byte) {
    const uint8_t code = group[string_k(byte)];
    *agree &= group[byte] == (string_flips(byte) ? 255 - code : code);
  }
  return group[i % 4];
}
