// The ops that take codes one by one: split rows over threads.
#include <cstring>

#include "cpu/common/buffer.h"
#include "cpu/int8_pool/call.h"

namespace pyops::cpu {
namespace {

// Codes of a part of a long row: whole vectors, and planes of a part of an image stay in L1.
constexpr int64_t kPartCodes = 1 << 12;

const Int8PoolKernel& active_pool_kernel() { return best<Int8PoolKernel>(int8_pool_kernels); }

CodeTerm term_of(Dtype type, double scale, int64_t zero) {
  return {nullptr, type, static_cast<float>(scale), static_cast<int32_t>(zero), 0};
}

CodeRows rows_to(Dtype type, double scale, int64_t zero) {
  CodeRows rows = {};
  rows.out_type = type;
  rows.out_inverse_scale = 1.0f / static_cast<float>(scale);
  rows.out_zero = static_cast<int32_t>(zero);
  return rows;
}

void advance(CodeTerm* term, int64_t elements) {
  if (term->data) {
    term->data = static_cast<const char*>(term->data) + elements * dtype_bytes(term->type);
  }
}

// All elements as one row, in parts.
void run_flat(const CodeRows& all, int64_t count) {
  const auto& kernel = active_pool_kernel();
  const int64_t parts = (count + kPartCodes - 1) / kPartCodes;
  parallel_range(parts, kSerialCodes / kPartCodes, [&](int64_t begin, int64_t end) {
    CodeRows rows = all;
    advance(&rows.a, begin * kPartCodes);
    advance(&rows.b, begin * kPartCodes);
    rows.out = static_cast<char*>(all.out) + begin * kPartCodes * dtype_bytes(all.out_type);
    rows.rows = 1;
    rows.cols = min64(count, end * kPartCodes) - begin * kPartCodes;
    kernel.code_rows(rows);
  });
}

template <int kChannels>
void interleave(const uint8_t* planes, int64_t ld, int64_t pixels, int64_t channels, uint8_t* out) {
  const int64_t c_end = kChannels ? kChannels : channels;
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t c = 0; c < c_end; ++c) out[p * c_end + c] = planes[c * ld + p];
  }
}

// An image as decoders leave it, [C][H][W]: codes of a part of its planes, and then its pixels.
void quantize_planes(const CodeRows& all, int64_t n, int64_t channels, int64_t pixels) {
  const auto& kernel = active_pool_kernel();
  const int64_t part = max64(64, kPartCodes / max64(1, channels)),
                parts = (pixels + part - 1) / part;
  parallel_range(n * parts, kSerialCodes / kPartCodes, [&](int64_t begin, int64_t end) {
    static thread_local Buffer buffer;
    uint8_t* planes = static_cast<uint8_t*>(buffer.get(channels * part));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / parts * channels * pixels, first = i % parts * part;
      CodeRows rows = all;
      advance(&rows.a, image + first);
      rows.a.ld = pixels;
      rows.rows = channels;
      rows.cols = min64(part, pixels - first);
      rows.out = planes;
      rows.ld_out = part;
      kernel.code_rows(rows);
      uint8_t* out = static_cast<uint8_t*>(all.out) + image + first * channels;
      const auto run = channels == 3 ? interleave<3> : interleave<0>;
      run(planes, part, rows.cols, channels, out);
    }
  });
}

// Where one input of a concatenation goes: `cols` elements of each of `rows` rows.
void place(const CodeRows& all, bool copies) {
  const auto& kernel = active_pool_kernel();
  parallel_range(all.rows, kSerialCodes / (all.cols + 1), [&](int64_t begin, int64_t end) {
    CodeRows rows = all;
    advance(&rows.a, begin * all.a.ld);
    rows.out = static_cast<char*>(all.out) + begin * all.ld_out * dtype_bytes(all.out_type);
    rows.rows = end - begin;
    if (!copies) return kernel.code_rows(rows);
    const auto* from = static_cast<const uint8_t*>(rows.a.data);
    auto* to = static_cast<uint8_t*>(rows.out);
    for (int64_t r = 0; r < rows.rows; ++r, from += rows.a.ld, to += rows.ld_out) {
      std::memcpy(to, from, static_cast<size_t>(rows.cols));
    }
  });
}

}  // namespace

CodesCall CodesCall::quantize(const char* op, const Value& x, double scale, int64_t zero,
                              int64_t out_dtype) {
  const Dtype from = checks::float_dtype(op, "x", x.type);
  STD_TORCH_CHECK(out_dtype == 3 || out_dtype == 4, op, ": out_dtype must be 3 or 4, but is ",
                  out_dtype);
  const auto type = static_cast<Dtype>(out_dtype);
  checks::code_scale(op, "scale", type, scale, "zero_point", zero);
  CodesCall call;
  call.out_ = value_like(x.sizes, type);
  call.rows_ = rows_to(type, scale, zero);
  call.rows_.a = term_of(from, 1.0, 0);
  return call;
}

CodesCall CodesCall::dequantize(const char* op, const Value& q, double scale, int64_t zero,
                                int64_t out_dtype) {
  const Dtype from = checks::code_dtype(op, "q", q.type);
  checks::code_scale(op, "scale", from, scale, "zero_point", zero);
  checks::code(op, "out_dtype", out_dtype, 3);
  CodesCall call;
  call.out_ = value_like(q.sizes, static_cast<Dtype>(out_dtype));
  call.rows_ = rows_to(static_cast<Dtype>(out_dtype), 1.0, 0);
  call.rows_.a = term_of(from, scale, zero);
  return call;
}

CodesCall CodesCall::add(const char* op, const Value& a, const Value& b, const Add& how) {
  const Dtype type_a = checks::code_dtype(op, "a", a.type);
  const Dtype type_b = checks::code_dtype(op, "b", b.type);
  STD_TORCH_CHECK(a.sizes == b.sizes, op, ": b must have the shape of a");
  checks::code_scale(op, "scale_a", type_a, how.scale_a, "zero_point_a", how.zero_a);
  checks::code_scale(op, "scale_b", type_b, how.scale_b, "zero_point_b", how.zero_b);
  STD_TORCH_CHECK(how.activation == 0 || how.activation == 1 || how.activation == 5, op,
                  ": activation code ", how.activation, " is unknown");
  const auto act = static_cast<Activation>(how.activation);
  const bool clamp = act == Activation::clamp;
  STD_TORCH_CHECK(!clamp || how.low <= how.high, op, ": low must be at most high, but ", how.low,
                  " > ", how.high);
  const Dtype type = checks::code_output(op, how.out_dtype, how.out_scale, how.out_zero);
  CodesCall call;
  call.out_ = value_like(a.sizes, type);
  call.rows_ = rows_to(type, how.out_scale, how.out_zero);
  call.rows_.a = term_of(type_a, how.scale_a, how.zero_a);
  call.rows_.b = term_of(type_b, how.scale_b, how.zero_b);
  const float infinity = __builtin_inff();
  call.rows_.low = clamp ? static_cast<float>(how.low) : act == Activation::relu ? 0.0f : -infinity;
  call.rows_.high = clamp ? static_cast<float>(how.high) : infinity;
  return call;
}

void CodesCall::run(const void* a, const void* b, void* out, int64_t images) const {
  int64_t count = out_.numel();
  if (count == 0) return;
  if (out_.dim() == 4) count = count / out_.size(0) * images;
  CodeRows rows = rows_;
  rows.a.data = a;
  rows.b.data = b;
  rows.out = out;
  run_flat(rows, count);
}

void CodesCall::run_planes(const void* a, void* out, int64_t images) const {
  if (out_.numel() == 0) return;
  CodeRows rows = rows_;
  rows.a.data = a;
  rows.out = out;
  quantize_planes(rows, images, out_.size(1), out_.size(2) * out_.size(3));
}

ConcatCall::ConcatCall(const char* op, const std::vector<const Value*>& xs, const double* scales,
                       const int64_t* zeros, int64_t dim_in, double out_scale, int64_t out_zero,
                       int64_t out_dtype) {
  STD_TORCH_CHECK(!xs.empty(), op, ": xs must hold at least 1 tensor, but is empty");
  const Dtype type = checks::code_output(op, out_dtype, out_scale, out_zero);
  const int64_t dims = xs[0]->dim(), dim = dim_in < 0 ? dim_in + dims : dim_in;
  STD_TORCH_CHECK(dims >= 1 && dim >= 0 && dim < dims, op, ": dim ", dim_in, " is not one of ",
                  dims);
  Sizes sizes = xs[0]->sizes;
  sizes[dim] = 0;
  for (size_t i = 0; i < xs.size(); ++i) {
    checks::code_scale(op, "scales", checks::code_dtype(op, "xs", xs[i]->type), scales[i],
                       "zero_points", zeros[i]);
    Sizes own = xs[i]->sizes;
    if (own.size() == sizes.size()) sizes[dim] += own[dim], own[dim] = sizes[dim];
    STD_TORCH_CHECK(own == sizes, op, ": xs[", i, "] must have the shape of xs[0] but for dim ",
                    dim);
  }
  // Elements of the output that one step of dim is, and the rows of such steps.
  int64_t inner = 1, rows_before = 1;
  const Sizes order = dims == 4 ? Sizes{0, 2, 3, 1} : Sizes{};
  for (int64_t i = 0, behind = 0; i < dims; ++i) {
    const int64_t d = dims == 4 ? order[i] : i;
    if (d == dim)
      behind = 1;
    else
      (behind ? inner : rows_before) *= sizes[d];
  }
  int64_t at = 0;
  for (size_t i = 0; i < xs.size(); ++i) {
    const Dtype from = checks::code_dtype(op, "xs", xs[i]->type);
    CodeRows rows = rows_to(type, out_scale, out_zero);
    rows.a = term_of(from, scales[i], zeros[i]);
    rows.cols = rows.a.ld = xs[i]->size(dim) * inner;
    rows.rows = rows_before;
    rows.ld_out = sizes[dim] * inner;
    parts_.push_back({rows, at, from == type && scales[i] == out_scale && zeros[i] == out_zero});
    at += rows.cols;
  }
  out_ = value_like(std::move(sizes), type);
}

void ConcatCall::run(size_t i, const void* x, void* out) const {
  const Part& part = parts_[i];
  if (part.rows.cols == 0 || part.rows.rows == 0) return;
  CodeRows rows = part.rows;
  rows.a.data = x;
  rows.out = static_cast<char*>(out) + part.at * dtype_bytes(rows.out_type);
  place(rows, part.copies);
}

}  // namespace pyops::cpu
