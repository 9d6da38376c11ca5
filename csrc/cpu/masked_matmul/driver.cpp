// The gradient of a masked weight: check, turn tokens to lanes, split the mask's sections over
// threads.
#include <atomic>
#include <cstring>

#include "checks/masked_matmul.h"
#include "cpu/common/buffer.h"
#include "cpu/common/driver.h"

namespace pyops::cpu {
namespace {

// Below so many products a second thread costs more than it saves.
constexpr int64_t kSerialMaskedProducts = 1 << 17;
// Tokens are turned so many bytes at a time: 256 of them stay in a second-level cache of a core.
constexpr int64_t kTurnedBytes = 8 << 20;

const uint8_t* bytes_of(const Tensor& t) { return static_cast<const uint8_t*>(t.const_data_ptr()); }

Tensor masked_pack(const Tensor& mask_in) {
  checks::mask_of("masked_pack", mask_in);
  static thread_local Buffer buffer;
  const Tensor mask = dense(mask_in);
  const int64_t n = mask.size(0), k = mask.size(1);
  uint8_t* quads = static_cast<uint8_t*>(buffer.get(masked_col_blocks(k) * n + 1));
  parallel_range(n, kSerialCodes / (k + 1), [&](int64_t begin, int64_t end) {
    count_masked_quads(bytes_of(mask), n, k, begin, end, quads);
  });
  const Tensor packed = new_packed(masked_bytes(n, k, sum_masked_quads(quads, n, k)));
  write_masked_header(quads, n, k, packed.mutable_data_ptr());
  parallel_range(masked_sections(n, k), 1, [&](int64_t begin, int64_t end) {
    pack_masked(bytes_of(mask), quads, begin, end, packed.mutable_data_ptr());
  });
  return packed;
}

void sections_fit(const char* op, const Tensor& packed) {
  const MaskedHeader& h = masked_header(packed.const_data_ptr());
  if (h.sections == 0) return;
  bool fit = true;
  for (int64_t s = 0; s < masked_sections(h.n, h.k); ++s) {
    fit = fit && masked_section_fits(masked_section(packed.const_data_ptr(), s));
  }
  STD_TORCH_CHECK(fit, op,
                  ": packed mask: a row is missing, or a place lies outside of its section");
}

Tensor masked_unpack(const Tensor& packed, int64_t n, int64_t k) {
  const char* op = "masked_unpack";
  checks::packed_mask(op, packed, n, k);
  sections_fit(op, packed);
  const Tensor mask = new_tensor({n, k}, ScalarType::Bool);
  unpack_masked(packed.const_data_ptr(), static_cast<uint8_t*>(mask.mutable_data_ptr()));
  return mask;
}

struct Products {
  const MaskedKernel& kernel;
  const void* packed;
  int64_t n, k;
  const float *dy, *x;  // [tokens][n], [tokens][k]
  float* grad;          // [n][k]
};

// Some tokens in lanes, a chunk at a time: x [column blocks][chunks][kMaskedDepth][chunk],
// dy [chunks][n][chunk].
struct Turned {
  int64_t tokens, chunks;
  float *dy, *x;
};

int64_t chunk_tokens(const Products& p, const Turned& t, int64_t chunk) {
  return min64(p.kernel.tokens, t.tokens - chunk * p.kernel.tokens);
}

// `unit` counts blocks of kMaskedDepth columns of x, then of dy.
void turn(const Products& p, const Turned& t, int64_t token, int64_t unit) {
  const int64_t of_x = masked_col_blocks(p.k), size = p.kernel.tokens;
  const bool x = unit < of_x;
  const int64_t width = x ? p.k : p.n, col = (x ? unit : unit - of_x) * kMaskedDepth;
  for (int64_t c = 0; c < t.chunks; ++c) {
    float* to =
        x ? t.x + (unit * t.chunks + c) * kMaskedDepth * size : t.dy + (c * p.n + col) * size;
    const float* from = (x ? p.x : p.dy) + (token + c * size) * width + col;
    p.kernel.turn({from, width, chunk_tokens(p, t, c), min64(kMaskedDepth, width - col), to});
  }
}

void multiply(const Products& p, const Turned& t, bool add, int64_t s, float* sums) {
  const MaskedPlace place = masked_place(p.n, p.k, s);
  const MaskedSection section = masked_section(p.packed, s);
  const int64_t size = p.kernel.tokens;
  const float* x = t.x + place.col * t.chunks * size;
  for (int64_t c = 0; c < t.chunks; ++c) {
    p.kernel.multiply({section, x + c * kMaskedDepth * size, t.dy + (c * p.n + place.row) * size,
                       chunk_tokens(p, t, c), c == 0, sums});
  }
  p.kernel.finish({section, sums, p.grad + place.row * p.k + place.col, p.k, add});
}

int64_t most_quads(const void* packed) {
  const MaskedHeader& h = masked_header(packed);
  int64_t most = 0;
  for (int64_t s = 0; s < masked_sections(h.n, h.k); ++s) {
    most = max64(most, masked_section(packed, s).quads);
  }
  return most;
}

// Threads take sections one by one, each sum in one thread: results do not depend on their number.
void multiply_all(const Products& p, int64_t m) {
  static thread_local Buffer turned_buffer, sum_buffer;
  const int64_t size = p.kernel.tokens, sections = masked_sections(p.n, p.k);
  const int64_t x_width = masked_col_blocks(p.k) * kMaskedDepth;
  const int64_t fitting = kTurnedBytes / (4 * (x_width + p.n)) / size * size;
  const int64_t at_once = min64(max64(size, fitting), round_up(m, size));
  float* turned = static_cast<float*>(turned_buffer.get(at_once * (x_width + p.n) * 4));
  const int64_t products = masked_header(p.packed).quads * kQuad * m;
  const int64_t all = products < kSerialMaskedProducts ? 1 : num_threads();
  const int64_t threads = max64(1, min64(all, sections));
  const int64_t sum_floats = round_up(most_quads(p.packed) * p.kernel.sum_floats, 16);
  float* sums = static_cast<float*>(sum_buffer.get(threads * sum_floats * 4 + 1));
  const int64_t units = masked_col_blocks(p.k) + masked_col_blocks(p.n);
  for (int64_t token = 0; token < m; token += at_once) {
    const int64_t tokens = min64(at_once, m - token);
    const Turned t = {tokens, (tokens + size - 1) / size, turned + x_width * at_once, turned};
    parallel_range(units, threads > 1 ? 1 : units, [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; ++unit) turn(p, t, token, unit);
    });
    std::atomic<int64_t> next{0};
    parallel_range(threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t s; (s = next++) < sections;)
          multiply(p, t, token > 0, s, sums + i * sum_floats);
      }
    });
  }
}

Tensor masked_weight_grad(const Tensor& grad_in, const Tensor& x_in, const Tensor& packed) {
  const char* op = "masked_weight_grad";
  checks::masked_rows(op, grad_in, x_in);
  const int64_t n = grad_in.size(grad_in.dim() - 1), k = x_in.size(x_in.dim() - 1);
  const MaskedHeader& h = checks::packed_mask(op, packed, n, k);
  STD_TORCH_CHECK(h.sections == 1, op,
                  ": packed mask: layout plain is the reference's; pack it again");
  sections_fit(op, packed);
  const Tensor out = new_tensor({n, k}, ScalarType::Float);
  float* to = static_cast<float*>(out.mutable_data_ptr());
  const int64_t m = checks::rows_of(x_in);
  if (m == 0) std::memset(to, 0, n * k * 4);
  if (m == 0 || n == 0 || k == 0) return out;
  const Tensor grad = dense(grad_in), x = dense(x_in);
  multiply_all({best<MaskedKernel>(masked_matmul_kernels), packed.const_data_ptr(), n, k,
                static_cast<const float*>(grad.const_data_ptr()),
                static_cast<const float*>(x.const_data_ptr()), to},
               m);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("masked_pack", TORCH_BOX(&masked_pack));
  m.impl("masked_unpack", TORCH_BOX(&masked_unpack));
  m.impl("masked_weight_grad", TORCH_BOX(&masked_weight_grad));
}

}  // namespace pyops::cpu
