// Runs every masked_matmul kernel that this CPU has on random problems, without torch or Python, so
// that it can run under sanitizers and on emulated CPUs.
//
//   masked_matmul_driver [--cases N] [--seed N]
//
// Results are compared with double, within the bound of masked_matmul.h; buffers end (or begin) at
// an unmapped page. Damaged sections have to be refused, or stay inside of buffers.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "cpu/masked_matmul/pack.h"
#include "guarded.h"
#include "run_kernels.h"

using namespace pyops::cpu;

namespace {

int failures = 0;

struct Problem {
  int64_t m, n, k;
  std::vector<uint8_t> mask;
  std::vector<float> dy, x;
};

Problem random_problem() {
  Problem p;
  p.m = size_up_to(150), p.n = size_up_to(300), p.k = size_up_to(280);
  const int64_t share = uniform(0, 10);
  for (int64_t i = 0; i < p.n * p.k; ++i) p.mask.push_back(uniform(0, 9) < share);
  for (int64_t i = 0; i < p.m * p.n; ++i) p.dy.push_back(uniform_float(2.0f));
  for (int64_t i = 0; i < p.m * p.k; ++i) p.x.push_back(uniform_float(2.0f));
  return p;
}

void fail(const MaskedKernel& kernel, const Problem& p, const char* what) {
  ++failures;
  std::printf("FAIL %s: %s, %ld x %ld x %ld\n", kernel.name, what, p.m, p.n, p.k);
}

Guarded<char>* pack(const Problem& p) {
  const Guarded<uint8_t> mask(p.n * p.k), quads(masked_col_blocks(p.k) * p.n);
  std::memcpy(mask.get(), p.mask.data(), p.mask.size());
  const int64_t half = p.n / 2;
  count_masked_quads(mask.get(), p.n, p.k, 0, half, quads.get());
  count_masked_quads(mask.get(), p.n, p.k, half, p.n, quads.get());
  const int64_t all = sum_masked_quads(quads.get(), p.n, p.k);
  auto* packed = new Guarded<char>(masked_bytes(p.n, p.k, all), 64);
  write_masked_header(quads.get(), p.n, p.k, packed->get());
  pack_masked(mask.get(), quads.get(), 0, masked_sections(p.n, p.k), packed->get());
  return packed;
}

// One section of the gradient, by chunks of tokens; what is there before is overwritten or, from
// the second half of the tokens on, added to.
void section(const MaskedKernel& kernel, const Problem& p, const char* packed, int64_t s,
             float* grad) {
  const MaskedSection own = masked_section(packed, s);
  const MaskedPlace place = masked_place(p.n, p.k, s);
  const Guarded<float> x(kMaskedDepth * kernel.tokens, 64), dy(kMaskedRows * kernel.tokens, 64);
  const Guarded<float> from_x(p.m * p.k), from_dy(p.m * p.n);
  const Guarded<float> sums(own.quads * kernel.sum_floats, 64);
  std::memcpy(from_x.get(), p.x.data(), 4 * p.x.size());
  std::memcpy(from_dy.get(), p.dy.data(), 4 * p.dy.size());
  const int64_t half = round_up(p.m / 2, kernel.tokens);
  for (int64_t token = 0; token < p.m; token += kernel.tokens) {
    const int64_t tokens = min64(kernel.tokens, p.m - token);
    const bool first = token == 0 || token == half;
    kernel.turn({from_x.get() + token * p.k + place.col, p.k, tokens, place.cols, x.get()});
    kernel.turn({from_dy.get() + token * p.n + place.row, p.n, tokens, place.rows, dy.get()});
    kernel.multiply({own, x.get(), dy.get(), tokens, first, sums.get()});
    if (token + kernel.tokens == half || token + tokens == p.m) {
      float* to = grad + place.row * p.k + place.col;
      kernel.finish({own, sums.get(), to, p.k, half > 0 && token >= half});
    }
  }
}

bool agrees(const Problem& p, const float* grad) {
  for (int64_t i = 0; i < p.n * p.k; ++i) {
    double sum = 0.0, size = 0.0;
    for (int64_t m = 0; m < p.m; ++m) {
      const double product = double{p.dy[m * p.n + i / p.k]} * p.x[m * p.k + i % p.k];
      sum += product, size += std::fabs(product);
    }
    if (!p.mask[i] ? grad[i] != 0.0f
                   : !(std::fabs(grad[i] - sum) <= (p.m + 9) / double{1 << 24} * size)) {
      return false;
    }
  }
  return true;
}

void one_case(const MaskedKernel& kernel) {
  const Problem p = random_problem();
  Guarded<char>* packed = pack(p);
  if (masked_problem(packed->get(), packed->count())) fail(kernel, p, "refuses what it packed");
  const Guarded<uint8_t> back(p.n * p.k);
  unpack_masked(packed->get(), back.get());
  if (std::memcmp(back.get(), p.mask.data(), p.mask.size()) != 0) fail(kernel, p, "unpack");
  const Guarded<float> grad(p.n * p.k);
  std::memset(grad.get(), 0x7f, 4 * grad.count());
  const int64_t sections = masked_sections(p.n, p.k);
  for (int64_t s = 0; s < sections; ++s) section(kernel, p, packed->get(), s, grad.get());
  if (!agrees(p, grad.get())) fail(kernel, p, "gradient");

  // Rows and depths, some of them damaged so that they still fit.
  const int64_t first = 64 + 8 * (sections + 1);
  for (int64_t i = 0; i < 3; ++i) {
    (*packed)[uniform(first, packed->count() - 1)] = static_cast<char>(uniform(0, 40));
  }
  if (masked_problem(packed->get(), packed->count())) fail(kernel, p, "looks at more");
  for (const int fill : {0x3e, 0x41}) {
    std::memset(grad.get(), fill, 4 * grad.count());
    for (int64_t s = 0; s < sections; ++s) {
      const MaskedSection own = masked_section(packed->get(), s);
      if (!masked_section_fits(own)) continue;
      section(kernel, p, packed->get(), s, grad.get());
      const MaskedPlace place = masked_place(p.n, p.k, s);
      for (int64_t r = place.row; r < place.row + place.rows; ++r) {
        for (int64_t c = place.col; c < place.col + place.cols; ++c) {
          float stale;
          std::memset(&stale, fill, 4);
          if (grad[r * p.k + c] == stale) fail(kernel, p, "leaves a place out");
        }
      }
    }
  }
  delete packed;
}

}  // namespace

int main(int argc, char** argv) {
  return run_kernels<MaskedKernel>(masked_matmul_kernels, one_case, failures, argc, argv);
}
