// Random products with a sparse weight, of floats or codes, by one kernel without torch: a tile of
// tokens after the other, and few rows. Packed bytes and operands end (or begin) at an unmapped
// page. Damaged bytes have to stay inside buffers, and may not bring what the sums held before.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "cpu/sparse_gemm/few_rows.h"
#include "guarded.h"

using namespace pyops::cpu;

struct SparseProblem {
  int64_t m, n, k;
  Dtype type, x_type;  // of the weight; of x: the same, or u8 or s8
  std::vector<char> w, x;
  std::vector<float> bias;

  bool codes() const { return type == Dtype::s8; }
  double at(const std::vector<char>& v, Dtype t, int64_t i) const {
    if (t == Dtype::s8) return static_cast<int8_t>(v[i]);
    if (t == Dtype::u8) return static_cast<uint8_t>(v[i]);
    return to_float(v.data(), t, i);
  }
};

inline std::vector<char> random_values(int64_t count, Dtype type) {
  std::vector<char> to(count * dtype_bytes(type));
  for (int64_t i = 0; i < count; ++i) {
    if (type == Dtype::s8 || type == Dtype::u8) {
      to[i] = static_cast<char>(uniform(0, 255));
    } else {
      from_float(uniform_float(2.0f), type, to.data(), i);
    }
  }
  return to;
}

// Some entries, in a pattern that up to four adjacent outputs share.
inline SparseProblem sparse_problem_of(const SparseGemmKernel& kernel, bool codes) {
  SparseProblem p;
  p.m = size_up_to(140), p.n = size_up_to(150), p.k = size_up_to(codes ? 700 : 400);
  p.type = codes ? Dtype::s8 : static_cast<Dtype>(uniform(0, 1));
  if (kernel.products == SparseProducts::bf16) p.type = Dtype::bf16;
  p.x_type = !codes ? p.type : coin() ? Dtype::u8 : Dtype::s8;
  p.w = random_values(p.n * p.k, p.type), p.x = random_values(p.m * p.k, p.x_type);
  for (int64_t i = 0; i < p.n; ++i) p.bias.push_back(uniform_float(3.0f));
  const int64_t bytes = dtype_bytes(p.type), share = uniform(0, 10), together = coin() ? 4 : 1;
  std::vector<bool> kept(p.k);
  for (int64_t row = 0; row < p.n; ++row) {
    for (int64_t i = 0; i < p.k; ++i) {
      if (row % together == 0) kept[i] = uniform(0, 9) < share;
      char* value = p.w.data() + (row * p.k + i) * bytes;
      if (!kept[i]) std::memset(value, 0, bytes);
      if (codes && *value == -128) *value = -127;
    }
  }
  return p;
}

// The packed weight, as drivers of ops make it.
class SparsePacked {
 public:
  SparsePacked(const SparseProblem& p, const SparseGemmKernel& kernel)
      : header_(header_of(p, kernel)), begins_(sections_of(p)), strips_(strips_of(p, kernel)) {
    header_.few = strips_.empty() ? 0 : 1;
    header_.bytes = round_up(begins_.back(), 64);
    if (header_.few) header_.bytes = FewLayout(header_, header_.bytes).bytes(strips_.back());
  }
  int64_t bytes() const { return header_.bytes; }

  void write(const SparseProblem& p, char* to) const {
    std::memset(to, 0, header_.bytes);
    std::memcpy(to, &header_, sizeof header_);
    std::memcpy(to + 64, begins_.data(), begins_.size() * 8);
    if (p.codes()) {
      auto* sums = reinterpret_cast<int32_t*>(to + header_.sums_at());
      sum_weights(header_, reinterpret_cast<const int8_t*>(p.w.data()), sums);
    }
    for (int64_t i = 0; i < header_.parts(); ++i) {
      pack_section(header_, p.w.data(), i, to + begins_[i]);
    }
    if (!header_.few) return;
    const FewLayout few = few_layout(to);
    std::memcpy(to + few.begins, strips_.data(), strips_.size() * 8);
    for (int64_t i = 0; i < few.strips; ++i) {
      pack_few(header_, p.w.data(), i, to + few.masks + i * few.mask_bytes(),
               to + few.values + strips_[i]);
    }
  }

 private:
  static SparseHeader header_of(const SparseProblem& p, const SparseGemmKernel& kernel) {
    const int64_t shape[4] = {p.n, p.k, 1, 1};
    return sparse_header_of(kernel, p.type, shape, 1);
  }
  std::vector<int64_t> sections_of(const SparseProblem& p) const {
    std::vector<int64_t> begins = {header_.sections_at()};
    for (int64_t i = 0; i < header_.parts(); ++i) {
      begins.push_back(begins.back() + pack_section(header_, p.w.data(), i, nullptr));
    }
    return begins;
  }
  std::vector<int64_t> strips_of(const SparseProblem& p, const SparseGemmKernel& kernel) const {
    if (kernel.few == 0 || !few_rows_possible(header_)) return {};
    std::vector<int64_t> begins = {0};
    for (int64_t i = 0; i < FewLayout(header_, 0).strips; ++i) {
      begins.push_back(begins.back() + pack_few(header_, p.w.data(), i, nullptr, nullptr));
    }
    return begins;
  }

  SparseHeader header_;
  std::vector<int64_t> begins_, strips_;
};

class SparseRun {
 public:
  SparseRun(const SparseProblem& p, const SparseGemmKernel& kernel, const char* packed, char stale)
      : p_(p), kernel_(kernel), packed_(packed), h_(sparse_header(packed)), stale_(stale) {
    out_type_ = p.codes() ? Dtype::s32 : p.type;
  }

  // Of rows [m0, m0 + tokens), by tiles or, if `few`, by strips.
  void rows(int64_t m0, int tokens, bool few, std::vector<char>* out) const {
    const int64_t width = dtype_bytes(out_type_);
    const Guarded<char> own(tokens * p_.n * width, width);
    const Guarded<float> bias(p_.n);
    std::memcpy(bias.get(), p_.bias.data(), 4 * p_.n);
    Epilogue e = {};
    e.out = own.get(), e.out_type = out_type_, e.ld = p_.n;
    if (p_.codes()) e.w_sum = sparse_sums(packed_);
    if (p_.x_type == Dtype::s8) e.zero_shift = 128;
    if (!p_.codes()) e.bias = bias.get();
    few ? by_strips(m0, tokens, &e) : by_tile(m0, tokens, &e);
    out->insert(out->end(), own.get(), own.get() + own.count());
  }

 private:
  void by_tile(int64_t m0, int tokens, const Epilogue* e) const {
    const int64_t element = dtype_bytes(p_.x_type), line = h_.row_bytes();
    const Guarded<char> x(tokens * p_.k * element, element);
    std::memcpy(x.get(), p_.x.data() + m0 * p_.k * element, x.count());
    std::vector<const void*> rows;
    for (int t = 0; t < tokens; ++t) rows.push_back(x.get() + t * p_.k * element);
    const Guarded<char> block(kBlockReach + line, 64);
    const Guarded<char> sums((kSectionRows + 1) * h_.nr * 4, 64);
    std::memset(block.get(), 0, block.count());
    for (int64_t s = 0; s < h_.sections(); ++s) {
      const int cols = static_cast<int>(min64(kSectionRows, p_.n - s * kSectionRows));
      std::memset(sums.get(), stale_, sums.count());
      for (int64_t b = 0; b < h_.blocks(); ++b) {
        const int64_t k0 = b * h_.kc, k1 = min64(p_.k, k0 + h_.kc);
        kernel_.tokens({rows.data(), p_.k, 0, p_.x_type, tokens, 0, k0, k1, block.get()});
        std::memset(block.get() + h_.kc * line, 0, line);
        const int64_t* begin = sparse_begins(packed_) + sparse_part(h_, 0, b, s);
        kernel_.multiply({packed_ + begin[0], packed_ + begin[1], block.get(), sums.get(), tokens,
                          b == 0, cols});
      }
      kernel_.finish({sums.get(), tokens, cols, 0, s * kSectionRows, e});
    }
  }

  void by_strips(int64_t m0, int tokens, const Epilogue* e) const {
    const FewLayout few = few_layout(packed_);
    const int64_t ldx = few.windows * few.window, element = p_.codes() ? 1 : 4;
    const Guarded<char> x(tokens * ldx * element, 64);
    std::memset(x.get(), 0, x.count());
    for (int t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < p_.k; ++i) {
        const double value = p_.at(p_.x, p_.x_type, (m0 + t) * p_.k + i);
        char* to = x.get() + (t * ldx + i) * element;
        const int shift = p_.x_type == Dtype::s8 ? 128 : 0;
        if (p_.codes()) *to = static_cast<char>(static_cast<int>(value) + shift);
        if (!p_.codes()) from_float(static_cast<float>(value), Dtype::f32, to, 0);
      }
    }
    const char* values = packed_ + few.values;
    const auto* begins = reinterpret_cast<const int64_t*>(packed_ + few.begins);
    const int64_t middle = uniform(0, few.strips);
    for (const auto& [first, last] : {std::pair(int64_t{0}, middle), {middle, few.strips}}) {
      kernel_.few_rows({begins, packed_ + few.masks, values, values + few.value_bytes(h_),
                        static_cast<Dtype>(h_.type), x.get(), ldx, few.windows, tokens, first, last,
                        p_.n, e});
    }
  }

  const SparseProblem& p_;
  const SparseGemmKernel& kernel_;
  const char* packed_;
  const SparseHeader& h_;
  const char stale_;
  Dtype out_type_;
};

inline bool sparse_agrees(const SparseProblem& p, const std::vector<char>& out, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < p.n; ++n) {
      double sum = p.codes() ? 0.0 : p.bias[n], size = std::fabs(sum);
      for (int64_t i = 0; i < p.k; ++i) {
        const double product = p.at(p.x, p.x_type, r * p.k + i) * p.at(p.w, p.type, n * p.k + i);
        sum += product, size += std::fabs(product);
      }
      const int64_t at = r * p.n + n;
      int32_t exact = 0;
      if (p.codes()) std::memcpy(&exact, out.data() + 4 * at, 4);
      const double got = p.codes() ? exact : to_float(out.data(), p.type, at);
      const double unit = 1.0 / (1 << 24), step = p.type == Dtype::bf16 ? 1.0 / 256 : unit;
      const double bound = p.codes() ? 0.0 : (p.k + 3) * unit * size + step * std::fabs(sum);
      if (!(std::fabs(got - sum) <= bound * (1 + step))) return false;
    }
  }
  return true;
}

// Tiles of all tokens; few rows of the first ones. What the sums held before is `stale`.
inline std::vector<char> sparse_products(const SparseProblem& p, const SparseGemmKernel& kernel,
                                         const char* packed, char stale, bool few) {
  const SparseRun run(p, kernel, packed, stale);
  std::vector<char> out;
  if (few) {
    run.rows(0, static_cast<int>(min64(p.m, kMostFewTokens)), true, &out);
    return out;
  }
  for (int64_t m0 = 0; m0 < p.m; m0 += kernel.nr) {
    run.rows(m0, static_cast<int>(min64(kernel.nr, p.m - m0)), false, &out);
  }
  return out;
}

inline bool unpacks(const SparseProblem& p, char* packed) {
  const SparseHeader& h = sparse_header(packed);
  const Guarded<char> w(p.n * p.k * dtype_bytes(p.type), 8);
  std::memset(w.get(), 0, w.count());
  const SparseMatrix matrix = {w.get(), p.type, p.k, 1};
  unpack_sparse(packed, 0, h.parts(), matrix);
  const bool same = std::memcmp(w.get(), p.w.data(), w.count()) == 0;
  if (p.codes()) return same;
  refresh_sparse(packed, 0, h.parts(), matrix);
  if (h.few) refresh_few(packed, 0, few_layout(packed).strips, matrix);
  return same;
}

// How many checks failed.
inline int sparse_case(const SparseGemmKernel& kernel, bool codes) {
  const SparseProblem p = sparse_problem_of(kernel, codes);
  const SparsePacked made(p, kernel);
  const Guarded<char> packed(made.bytes(), 64);
  made.write(p, packed.get());
  int failures = 0;
  const auto expect = [&](bool ok, const char* what) {
    if (ok) return;
    ++failures;
    std::printf("FAIL %s: %s, %ld x %ld x %ld, type %d\n", kernel.name, what, p.m, p.k, p.n,
                static_cast<int>(p.type));
  };
  expect(sparse_problem(packed.get(), packed.count()) == nullptr, "refuses what it packed");
  expect(unpacks(p, packed.get()), "unpack is not the inverse of pack");
  const bool few = sparse_header(packed.get()).few != 0;
  expect(sparse_agrees(p, sparse_products(p, kernel, packed.get(), 0x7f, false), p.m), "products");
  if (few) {
    const int64_t rows = min64(p.m, kMostFewTokens);
    expect(sparse_agrees(p, sparse_products(p, kernel, packed.get(), 0, true), rows), "few rows");
  }
  // All but the header and the tables that are checked.
  const int64_t first = sparse_begins(packed.get())[0];
  for (int64_t i = first; i < packed.count(); ++i) {
    if (uniform(0, 15) == 0) packed[i] = static_cast<char>(coin() ? rng() : 0);
  }
  const auto one = sparse_products(p, kernel, packed.get(), 0x3e, false);
  expect(one == sparse_products(p, kernel, packed.get(), 0x41, false), "stale sums come out");
  if (few) sparse_products(p, kernel, packed.get(), 0, true);  // what comes out does not matter
  unpacks(p, packed.get());
  return failures;
}
