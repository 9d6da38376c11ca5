// The ops that take codes one by one: check, bring images to NHWC, split rows over threads.
#include <cstring>

#include "checks/int8_pool.h"
#include "cpu/common/buffer.h"
#include "cpu/common/nhwc.h"

namespace pyops::cpu {
namespace {

// Codes of a part of a long row: whole vectors, and planes of a part of an image stay in L1.
constexpr int64_t kPartCodes = 1 << 12;

const Int8PoolKernel& active_pool_kernel() { return best<Int8PoolKernel>(int8_pool_kernels); }

CodeTerm term_of(const Tensor& t, Dtype type, double scale, int64_t zero) {
  return {t.const_data_ptr(), type, static_cast<float>(scale), static_cast<int32_t>(zero), 0};
}

CodeRows rows_to(const Tensor& out, Dtype type, double scale, int64_t zero) {
  CodeRows rows = {};
  rows.out_type = type;
  rows.out = out.mutable_data_ptr();
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

Tensor int8_quantize(const Tensor& x_in, double scale, int64_t zero, int64_t out_dtype) {
  const char* op = "int8_quantize";
  const Dtype from = checks::float_dtype(op, "x", x_in);
  STD_TORCH_CHECK(out_dtype == 3 || out_dtype == 4, op, ": out_dtype must be 3 or 4, but is ",
                  out_dtype);
  const auto type = static_cast<Dtype>(out_dtype);
  checks::code_scale(op, "scale", type, scale, "zero_point", zero);
  const bool planes = x_in.dim() == 4 && x_in.is_contiguous() && !is_nhwc(x_in);
  const Tensor x = planes ? x_in : arranged(x_in), out = new_arranged(sizes_of(x_in), type);
  if (x.numel() == 0) return out;
  CodeRows rows = rows_to(out, type, scale, zero);
  rows.a = term_of(x, from, 1.0, 0);
  if (planes) {
    quantize_planes(rows, x.size(0), x.size(1), x.size(2) * x.size(3));
  } else {
    run_flat(rows, x.numel());
  }
  return out;
}

Tensor int8_dequantize(const Tensor& q_in, double scale, int64_t zero, int64_t out_dtype) {
  const char* op = "int8_dequantize";
  const Dtype from = checks::code_dtype(op, "q", q_in);
  checks::code_scale(op, "scale", from, scale, "zero_point", zero);
  checks::code(op, "out_dtype", out_dtype, 3);
  const auto type = static_cast<Dtype>(out_dtype);
  const Tensor q = arranged(q_in), out = new_arranged(sizes_of(q_in), type);
  CodeRows rows = rows_to(out, type, 1.0, 0);
  rows.a = term_of(q, from, scale, zero);
  if (q_in.numel() != 0) run_flat(rows, q_in.numel());
  return out;
}

Tensor int8_add(const Tensor& a_in, const Tensor& b_in, double scale_a, int64_t zero_a,
                double scale_b, int64_t zero_b, int64_t activation, double low, double high,
                int64_t out_dtype, double out_scale, int64_t out_zero) {
  const char* op = "int8_add";
  const Dtype type_a = checks::code_dtype(op, "a", a_in);
  const Dtype type_b = checks::code_dtype(op, "b", b_in);
  const Sizes sizes = sizes_of(a_in);
  STD_TORCH_CHECK(sizes == sizes_of(b_in), op, ": b must have the shape of a");
  checks::code_scale(op, "scale_a", type_a, scale_a, "zero_point_a", zero_a);
  checks::code_scale(op, "scale_b", type_b, scale_b, "zero_point_b", zero_b);
  STD_TORCH_CHECK(activation == 0 || activation == 1 || activation == 5, op, ": activation code ",
                  activation, " is unknown");
  const auto act = static_cast<Activation>(activation);
  STD_TORCH_CHECK(act != Activation::clamp || low <= high, op, ": low must be at most high, but ",
                  low, " > ", high);
  const Dtype type = checks::code_output(op, out_dtype, out_scale, out_zero);
  const Tensor a = arranged(a_in), b = arranged(b_in), out = new_arranged(sizes, type);
  CodeRows rows = rows_to(out, type, out_scale, out_zero);
  rows.a = term_of(a, type_a, scale_a, zero_a);
  rows.b = term_of(b, type_b, scale_b, zero_b);
  const bool clamp = act == Activation::clamp;
  const float infinity = __builtin_inff();
  rows.low = clamp ? static_cast<float>(low) : act == Activation::relu ? 0.0f : -infinity;
  rows.high = clamp ? static_cast<float>(high) : infinity;
  if (a_in.numel() != 0) run_flat(rows, a_in.numel());
  return out;
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

Tensor int8_concat(const std::vector<Tensor>& xs, const std::vector<double>& scales,
                   const std::vector<int64_t>& zeros, int64_t dim_in, double out_scale,
                   int64_t out_zero, int64_t out_dtype) {
  const char* op = "int8_concat";
  STD_TORCH_CHECK(!xs.empty(), op, ": xs must hold at least 1 tensor, but is empty");
  STD_TORCH_CHECK(scales.size() == xs.size() && zeros.size() == xs.size(), op, ": ", xs.size(),
                  " tensors need as many scales and zero points");
  const Dtype type = checks::code_output(op, out_dtype, out_scale, out_zero);
  const int64_t dims = xs[0].dim(), dim = dim_in < 0 ? dim_in + dims : dim_in;
  STD_TORCH_CHECK(dims >= 1 && dim >= 0 && dim < dims, op, ": dim ", dim_in, " is not one of ",
                  dims);
  Sizes sizes = sizes_of(xs[0]);
  sizes[dim] = 0;
  for (size_t i = 0; i < xs.size(); ++i) {
    checks::code_scale(op, "scales", checks::code_dtype(op, "xs", xs[i]), scales[i], "zero_points",
                       zeros[i]);
    Sizes own = sizes_of(xs[i]);
    if (own.size() == sizes.size()) sizes[dim] += own[dim], own[dim] = sizes[dim];
    STD_TORCH_CHECK(own == sizes, op, ": xs[", i, "] must have the shape of xs[0] but for dim ",
                    dim);
  }
  const Tensor out = new_arranged(sizes, type);
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
    const Tensor x = arranged(xs[i]);
    const Dtype from = checks::code_dtype(op, "xs", x);
    CodeRows rows = rows_to(out, type, out_scale, out_zero);
    rows.a = term_of(x, from, scales[i], zeros[i]);
    rows.cols = rows.a.ld = xs[i].size(dim) * inner;
    rows.rows = rows_before;
    rows.ld_out = sizes[dim] * inner;
    rows.out = static_cast<char*>(rows.out) + at * dtype_bytes(type);
    at += rows.cols;
    if (rows.cols == 0 || rows.rows == 0) continue;
    place(rows, from == type && scales[i] == out_scale && zeros[i] == out_zero);
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("int8_quantize", TORCH_BOX(&int8_quantize));
  m.impl("int8_dequantize", TORCH_BOX(&int8_dequantize));
  m.impl("int8_add", TORCH_BOX(&int8_add));
  m.impl("int8_concat", TORCH_BOX(&int8_concat));
}

}  // namespace pyops::cpu
