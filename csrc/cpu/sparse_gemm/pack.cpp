#include "cpu/sparse_gemm/entries.h"
#include "cpu/sparse_gemm/few_rows.h"

#if defined(__linux__)
#include <unistd.h>
#endif

#include <cstring>

namespace pyops::cpu {
namespace {

constexpr char kMagic[8] = {'p', 'y', 'o', 'p', 's', 'S', 'P', '\0'};
constexpr int32_t kVersion = 1;
constexpr int64_t kMostBytes = int64_t{1} << 46;
constexpr int64_t kDepthStep = 16;  // kc is a multiple of it

bool known_format(const SparseHeader& h) {
  const auto type = static_cast<Dtype>(h.type);
  const bool types = (type == Dtype::f32 || type == Dtype::bf16) && h.products == 0;
  const bool layout = h.nr >= 1 && h.nr <= kMostTokens && h.kr >= 1 && h.kc >= 1 &&
                      h.kc <= kMostDepth && int64_t{h.kc} * h.nr * 4 < kBlockReach;
  const bool shape = h.oc >= 1 && h.cg >= 1 && h.kh >= 1 && h.kw >= 1 && h.groups >= 1 &&
                     (h.few == 0 || h.few == 1);
  if (!types || !layout || !shape || h.oc % h.groups != 0) return false;
  // In double: a product of damaged sizes could wrap around.
  const double all = (h.oc + 64.0 * h.groups) * (h.cg + 1.0) * h.kh * h.kw;
  return all < static_cast<double>(kMostBytes);
}

// Blocks of x that fill the first-level cache gain more by fewer loads and stores of sums than the
// weight and the sums that pass by cost them.
int64_t block_bytes() {
  int64_t cache = 32 << 10;
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  if (const long size = sysconf(_SC_LEVEL1_DCACHE_SIZE); size > 0) cache = size;
#endif
  return cache;
}

// visit(row, k, value): every entry of a part, also those that only fill up a quad; value: 4 bytes.
// A caller may have damaged the bytes.
template <class Char, class F>
void each_entry(const SparseHeader& h, Char* section, Char* end, const SparsePlace& p,
                const F& visit) {
  const int64_t line = h.nr * 4;
  const auto has = [&](const Char* from, int64_t items, size_t size) {
    return (end - from) / static_cast<int64_t>(size) >= items;
  };
  const auto entry = [&](int row, int64_t at, Char* value) {
    const int64_t k = p.k + at / line;
    if (row < p.rows && k < p.k_end) visit(p.row + row, k, value);
  };
  SparseCounts counts;
  std::memcpy(&counts, section, sizeof counts);
  Char* next = section + sizeof counts;
  for (uint32_t run = 0; run < counts.pairs; ++run) {
    SparsePair pair;
    if (!has(next, 1, sizeof pair)) return;
    std::memcpy(&pair, next, sizeof pair);
    next += sizeof pair;
    if (!has(next, pair.items, sizeof(SparsePairItem))) return;
    for (uint32_t i = 0; i < pair.items; ++i, next += sizeof(SparsePairItem)) {
      SparsePairItem item;
      std::memcpy(&item, next, sizeof item);
      for (int j = 0; j < 4; ++j) {
        if (item.at[j] != h.kc * line) {
          entry(pair.rows[j % 2], item.at[j], next + offsetof(SparsePairItem, w) + 4 * j);
        }
      }
    }
  }
  for (uint32_t run = 0; run < counts.quads; ++run) {
    SparseQuad quad;
    if (!has(next, 1, sizeof quad)) return;
    std::memcpy(&quad, next, sizeof quad);
    next += sizeof quad;
    if (!has(next, quad.items, sizeof(SparseQuadItem))) return;
    for (uint32_t i = 0; i < quad.items; ++i, next += sizeof(SparseQuadItem)) {
      SparseQuadItem item;
      std::memcpy(&item, next, sizeof item);
      for (int j = 0; j < 4; ++j) {
        entry(quad.rows[j], item.at, next + offsetof(SparseQuadItem, w) + 4 * j);
      }
    }
  }
}

}  // namespace

SparseHeader sparse_header_of(const SparseGemmKernel& kernel, Dtype type, const int64_t* shape,
                              int64_t groups) {
  SparseHeader h = {};
  std::memcpy(h.magic, kMagic, 8);
  h.version = kVersion;
  h.nr = kernel.nr, h.kr = kernel.kr;
  h.type = static_cast<int32_t>(type);
  h.products = static_cast<int32_t>(kernel.products);
  h.oc = static_cast<int32_t>(shape[0]), h.cg = static_cast<int32_t>(shape[1]);
  h.kh = static_cast<int32_t>(shape[2]), h.kw = static_cast<int32_t>(shape[3]);
  h.groups = static_cast<int32_t>(groups);
  const int64_t line = kernel.nr * 4;
  const int64_t fit = min64(min64(block_bytes(), kBlockReach - line) / line, kMostDepth);
  h.kc = static_cast<int32_t>(max64(kDepthStep, fit / kDepthStep * kDepthStep));
  return h;
}

bool is_sparse(const void* packed, int64_t bytes) {
  return bytes >= 64 && std::memcmp(packed, kMagic, 8) == 0;
}

const char* sparse_problem(const void* packed, int64_t bytes) {
  if (!is_sparse(packed, bytes)) return "not made by sparse_pack (no header)";
  const SparseHeader& h = sparse_header(packed);
  if (h.version != kVersion) return "made by another version of pyops";
  if (!known_format(h)) return "its header is damaged";
  const int64_t parts = h.parts(), table = 64 + 8 * (parts + 1);
  if (h.bytes != bytes || bytes < table) return "its length contradicts its header";
  const int64_t* begins = sparse_begins(packed);
  bool inside = begins[0] == table;
  inside = inside && (h.few ? begins[parts] < bytes : round_up(begins[parts], 64) == bytes);
  for (int64_t i = 0; i < parts; ++i) {
    inside = inside && begins[i + 1] - begins[i] >= int64_t{sizeof(SparseCounts)};
  }
  if (!inside) return "its table of sections is damaged";
  return h.few ? few_problem(packed, bytes) : nullptr;
}

void unpack_sparse(const void* packed, int64_t first, int64_t last, const SparseMatrix& to) {
  const SparseHeader& h = sparse_header(packed);
  for (int64_t part = first; part < last; ++part) {
    const char* all = static_cast<const char*>(packed);
    const int64_t* begins = sparse_begins(packed) + part;
    each_entry(h, all + begins[0], all + begins[1], place_of(h, part),
               [&](int64_t row, int64_t k, const char* value) {
                 float v;
                 std::memcpy(&v, value, 4);
                 const int64_t at = to.place(h, row, k);
                 if (to.type == Dtype::bf16) {
                   static_cast<uint16_t*>(to.data)[at] = static_cast<uint16_t>(float_bits(v) >> 16);
                 } else {
                   static_cast<float*>(to.data)[at] = v;
                 }
               });
  }
}

void refresh_sparse(void* packed, int64_t first, int64_t last, const SparseMatrix& from) {
  const SparseHeader& h = sparse_header(packed);
  for (int64_t part = first; part < last; ++part) {
    char* all = static_cast<char*>(packed);
    const int64_t* begins = sparse_begins(packed) + part;
    each_entry(h, all + begins[0], all + begins[1], place_of(h, part),
               [&](int64_t row, int64_t k, char* value) {
                 const float v = value_at(from.data, from.type, from.place(h, row, k));
                 std::memcpy(value, &v, 4);
               });
  }
}

}  // namespace pyops::cpu
