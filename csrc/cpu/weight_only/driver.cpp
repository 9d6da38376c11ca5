// The weight-only ops: check, choose a kernel, widen rows to float32, split the product over
// threads.
#include <tuple>

#include "checks/weight_only.h"
#include "cpu/common/buffer.h"
#include "cpu/common/driver.h"
#include "cpu/common/partition.h"

namespace pyops::cpu {
namespace {

// Below so many products a second thread costs more than it saves.
constexpr int64_t kSerialFloatProducts = 1 << 18;

const WeightKernel& active_weight_kernel() { return best<WeightKernel>(weight_only_kernels); }

Tensor pack(const PlainWeight& w, int64_t n, int64_t k, const WeightFormat& format) {
  const int nr = active_weight_kernel().nr;
  const Tensor packed = new_packed(weight_bytes(n, k, nr, format));
  void* to = packed.mutable_data_ptr();
  weight_header(to, n, k, nr, format);
  parallel_range((n + nr - 1) / nr, kSerialCodes / (nr * (k + 1)),
                 [&](int64_t begin, int64_t end) { pack_weight(to, w, begin, end); });
  return packed;
}

template <class T>
T* data_of(const Tensor& t) {
  return const_cast<T*>(static_cast<const T*>(t.const_data_ptr()));
}

Tensor int8_weight_pack(const Tensor& weight) {
  const char* op = "int8_weight_pack";
  checks::cpu_tensor(op, "weight", weight, ScalarType::Char, "torch.int8");
  STD_TORCH_CHECK(weight.dim() == 2, op, ": weight must be 2-D [N, K], but is ", weight.dim(),
                  "-D");
  const Tensor w = dense(weight);
  return pack({data_of<int8_t>(w), nullptr, nullptr}, w.size(0), w.size(1), {8, 0, false});
}

Tensor int8_weight_unpack(const Tensor& packed, int64_t n, int64_t k) {
  checks::packed_weight("int8_weight_unpack", "int8_weight_pack", packed, 8, n, k);
  const Tensor w = new_tensor({n, k}, ScalarType::Char);
  unpack_weight(packed.const_data_ptr(), {data_of<int8_t>(w), nullptr, nullptr});
  return w;
}

Tensor int4_pack(const Tensor& codes, const Tensor& scale, const OptionalTensor& zero,
                 int64_t group_size) {
  checks::int4_weight(codes, scale, zero, group_size);
  const Tensor q = dense(codes), s = dense(scale);
  const OptionalTensor z = dense(zero);
  const bool zeros = z.has_value();
  checks::int4_values("codes", q.const_data_ptr(), q.numel(), !zeros);
  if (zeros) checks::int4_values("zero", z->const_data_ptr(), z->numel(), false);
  const PlainWeight w = {data_of<int8_t>(q), data_of<float>(s),
                         zeros ? data_of<uint8_t>(*z) : nullptr};
  return pack(w, q.size(0), q.size(1), {4, static_cast<int>(group_size), zeros});
}

std::tuple<Tensor, Tensor, Tensor> int4_unpack(const Tensor& packed, int64_t n, int64_t k,
                                               int64_t group_size, bool zeros) {
  const char* op = "int4_unpack";
  checks::int4_group(op, group_size);
  const WeightHeader& h = checks::packed_weight(op, "int4_pack", packed, 4, n, k);
  STD_TORCH_CHECK(h.group == group_size && (h.zeros == 1) == zeros, op,
                  ": the packed weight has groups of ", h.group, h.zeros ? " with" : " without",
                  " zero points, but ", group_size, zeros ? " with" : " without",
                  " zero points given");
  const int64_t groups = group_count(k, h.group);
  const Tensor codes = new_tensor({n, k}, zeros ? ScalarType::Byte : ScalarType::Char);
  const Tensor scale = new_tensor({n, groups}, ScalarType::Float);
  const Tensor zero = new_tensor({n, zeros ? groups : 0}, ScalarType::Byte);
  unpack_weight(packed.const_data_ptr(),
                {data_of<int8_t>(codes), data_of<float>(scale), data_of<uint8_t>(zero)});
  return {codes, scale, zero};
}

// x [m, k] as float32 [m][ldx], and the sums of its groups where the weight has zero points.
struct FloatRows {
  const float *x, *sums;
  int64_t ldx, ld_sums;
  bool finite;  // all sums are
};

FloatRows widen_rows(const char* x, Dtype type, const Shape& s, const WeightKernel& kernel,
                     const WeightFormat& format) {
  static thread_local Buffer row_buffer, sum_buffer, finite_buffer;
  const int64_t ldx = round_up(s.k, kWeightDepth);
  const int64_t groups = format.zeros ? group_count(s.k, format.group) : 0;
  float* rows = static_cast<float*>(row_buffer.get(s.m * ldx * 4));
  float* sums = groups ? static_cast<float*>(sum_buffer.get(s.m * groups * 4)) : nullptr;
  bool* finite = static_cast<bool*>(finite_buffer.get(s.m));
  const int64_t row_bytes = s.k * dtype_bytes(type);
  parallel_range(s.m, kSerialCodes / (s.k + 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* own_sums = sums ? sums + r * groups : nullptr;
      finite[r] =
          kernel.widen_row({x + r * row_bytes, type, s.k, rows + r * ldx, own_sums, format.group});
    }
  });
  bool all = true;
  for (int64_t r = 0; r < s.m; ++r) all = all && finite[r];
  return {rows, sums, ldx, groups, all};
}

// Threads take panels; rows, too, where there are fewer panels than threads would share evenly.
Grid split_weight(const WeightKernel& kernel, const Shape& s) {
  const int64_t products = s.m * s.n * s.k;
  const int64_t threads = products < kSerialFloatProducts ? 1 : num_threads();
  Grid grid = {1, 1, kernel.mr, kernel.nr, 0, 0};
  grid.row_units = (s.m + grid.row_unit - 1) / grid.row_unit;
  grid.col_units = (s.n + grid.col_unit - 1) / grid.col_unit;
  int64_t least = -1;
  for (int64_t tn = threads; tn >= 1; --tn) {
    const int64_t tm = min64(threads / tn, grid.row_units);
    const int64_t largest = ((grid.row_units + tm - 1) / tm) * ((grid.col_units + tn - 1) / tn);
    if (least >= 0 && largest >= least) continue;
    least = largest;
    grid.tm = tm;
    grid.tn = tn;
  }
  return grid;
}

struct WeightProduct {
  const WeightKernel& kernel;
  const void* packed;
  FloatRows rows;
  bool decode;
  Epilogue epilogue;
};

// Rows [row, row_end) by columns [col, col_end), whole panels.
void multiply_weight(const WeightProduct& p, int64_t row, int64_t row_end, int64_t col,
                     int64_t col_end) {
  const WeightHeader& h = weight_header(p.packed);
  for (int64_t r = row; r < row_end; r += kWeightRows) {
    Epilogue epilogue = p.epilogue;
    advance_rows(&epilogue, r);
    const float* sums = p.rows.sums ? p.rows.sums + r * p.rows.ld_sums : nullptr;
    const int rows = static_cast<int>(min64(kWeightRows, row_end - r));
    for (int64_t n0 = col; n0 < col_end; n0 += h.nr) {
      p.kernel.block({p.rows.x + r * p.rows.ldx, p.rows.ldx, sums, p.rows.ld_sums,
                      weight_panel(p.packed, n0), h.k, format_of(h), rows,
                      static_cast<int>(min64(h.nr, col_end - n0)), n0, p.decode, &epilogue});
    }
  }
}

// Rows of a chunk are held as floats: this many bytes, but at least two blocks.
constexpr int64_t kFloatBytes = 8 << 20;

// Decoding first rounds differently, so only shape and values of the input decide it, never a
// thread's share. Of the values: with zero points a sum that is not finite does, for then Inf times
// q - zero is what it is for any weight, and not a difference of two infinite sums.
void multiply_chunk(const char* x, Dtype type, const Shape& s, const WeightKernel& kernel,
                    bool decode, const void* packed, const Epilogue& epilogue) {
  const FloatRows rows = widen_rows(x, type, s, kernel, format_of(weight_header(packed)));
  const WeightProduct p = {kernel, packed, rows, decode || !rows.finite, epilogue};
  const Grid grid = split_weight(kernel, s);
  parallel_range(grid.tm * grid.tn, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      multiply_weight(p, grid.row(i, s.m), grid.row_end(i, s.m), grid.col(i, s.n),
                      grid.col_end(i, s.n));
    }
  });
}

// The two ops after their own checks.
Tensor weight_linear(const char* op, const Tensor& input, const Tensor& packed, int64_t n,
                     const OptionalTensor& scale_w, const OptionalTensor& bias,
                     const OptionalTensor& residual, int64_t activation, int64_t out_dtype) {
  const Dtype type = checks::float_dtype(op, "x", input);
  checks::epilogue(op, input, n, scale_w, bias, residual, activation, out_dtype, 3);
  const WeightHeader& h = weight_header(packed.const_data_ptr());
  const WeightKernel& kernel = active_weight_kernel();
  checks::weight_layout(op, h, kernel);
  const Tensor x = dense(input);
  const int64_t m = checks::rows_of(x);
  const Tensor out = output_like(x, n, out_dtype);
  if (m == 0 || n == 0) return out;
  const Operands operands = {dense(scale_w), dense(bias), dense(residual)};
  const Epilogue all_rows = epilogue_of(operands, activation, out_dtype, out);
  const int64_t chunk = max64(2 * kWeightRows, kFloatBytes / (4 * (h.k + 1)));
  for (int64_t row = 0; row < m; row += chunk) {
    Epilogue epilogue = all_rows;
    advance_rows(&epilogue, row);
    const char* from = static_cast<const char*>(x.const_data_ptr()) + row * h.k * dtype_bytes(type);
    multiply_chunk(from, type, {min64(chunk, m - row), n, h.k}, kernel, m >= kernel.decode_from,
                   packed.const_data_ptr(), epilogue);
  }
  return out;
}

Tensor int8_weight_linear(const Tensor& x, const Tensor& packed, const Tensor& scale_w,
                          const OptionalTensor& bias, const OptionalTensor& residual,
                          int64_t activation, int64_t out_dtype) {
  const char* op = "int8_weight_linear";
  checks::float_dtype(op, "x", x);
  checks::at_least_1d(op, "x", x);
  STD_TORCH_CHECK(scale_w.dim() == 1, op, ": scale_w must be 1-D [N], but is ", scale_w.dim(),
                  "-D");
  const int64_t n = scale_w.size(0);
  checks::packed_weight(op, "int8_weight_pack", packed, 8, n, x.size(x.dim() - 1));
  return weight_linear(op, x, packed, n, scale_w, bias, residual, activation, out_dtype);
}

Tensor int4_linear(const Tensor& x, const Tensor& packed, int64_t n, const OptionalTensor& bias,
                   const OptionalTensor& residual, int64_t activation, int64_t out_dtype) {
  const char* op = "int4_linear";
  checks::float_dtype(op, "x", x);
  checks::at_least_1d(op, "x", x);
  checks::packed_weight(op, "int4_pack", packed, 4, n, x.size(x.dim() - 1));
  return weight_linear(op, x, packed, n, OptionalTensor(), bias, residual, activation, out_dtype);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("int8_weight_pack", TORCH_BOX(&int8_weight_pack));
  m.impl("int8_weight_unpack", TORCH_BOX(&int8_weight_unpack));
  m.impl("int4_pack", TORCH_BOX(&int4_pack));
  m.impl("int4_unpack", TORCH_BOX(&int4_unpack));
  m.impl("int8_weight_linear", TORCH_BOX(&int8_weight_linear));
  m.impl("int4_linear", TORCH_BOX(&int4_linear));
}

}  // namespace pyops::cpu
