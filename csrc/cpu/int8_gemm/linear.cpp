// The int8 ops that quantize their input row by row: one layer, several on one input, two in a row.
#include "cpu/int8_gemm/operands.h"

namespace pyops::cpu {
namespace {

// One weight of a linear layer, checked; `operands` keep alive what the epilogue points to.
struct Member {
  const Int8GemmKernel* kernel;
  Operands operands;
  Operand weight;
};

// k: what the weight has to take, which for the second of two layers is not x's.
Member member_of(const char* op, const Tensor& x, int64_t k, const Tensor& packed,
                 const Tensor& scale_w, const OptionalTensor& bias, const OptionalTensor& residual,
                 int64_t activation, int64_t out_dtype) {
  STD_TORCH_CHECK(scale_w.dim() == 1, op, ": scale_w must be 1-D [N], but is ", scale_w.dim(),
                  "-D");
  const int64_t n = scale_w.size(0);
  const PackedHeader& header = checks::packed(op, packed, n, k);
  const Int8GemmKernel& kernel = kernel_for(op, header, checks::rows_of(x));
  check_common(op, x, n, scale_w, bias, residual, activation, out_dtype, 3);
  return {
      &kernel, {dense(scale_w), dense(bias), dense(residual)}, {packed.const_data_ptr(), n, 0, {}}};
}

// Float rows, contiguous.
struct Rows {
  const void* data;
  Dtype type;
  int64_t m, k;

  explicit Rows(const Tensor& x)
      : Rows{x.const_data_ptr(), checks::float_dtype("int8_linear", "x", x), checks::rows_of(x),
             x.size(x.dim() - 1)} {}
  Rows(const void* data, Dtype type, int64_t m, int64_t k) : data(data), type(type), m(m), k(k) {}
};

// Rows [first, first + count) as codes in the kernel's form.
void quantize(const Int8GemmKernel& kernel, const Rows& x, int64_t first, int64_t count, char* to,
              float* scales) {
  const int64_t row_bytes = x.k * dtype_bytes(x.type), k_padded = round_up(x.k, kDepthStep);
  const char* from = static_cast<const char*>(x.data) + first * row_bytes;
  for (int64_t r = 0; r < count; ++r) {
    kernel.quantize_row({from + r * row_bytes, x.type, x.k, k_padded, true, kernel.codes,
                         to + r * k_padded * code_bytes(kernel.codes), scales + r, nullptr});
  }
}

// The weight's operand in a product of quantized rows with these scales.
Operand operand_of(const Member& member, const float* scales, int64_t start) {
  Operand w = member.weight;
  w.start = start;
  w.epilogue.scale_a = scales;
  w.epilogue.scale_a_stride = 1;
  w.epilogue.zero_shift = is_u8(member.kernel->codes) ? 128 : 0;
  return w;
}

// x, quantized row by row, times every weight: out[i] = epilogue(x w_i^T). All kernels are alike.
void multiply_linear(const Rows& x, const Member* members, Operand* weights, int64_t count) {
  static thread_local Buffer scale_buffer;
  const Int8GemmKernel& kernel = *members[0].kernel;
  float* scales = static_cast<float*>(scale_buffer.get(x.m * 4));
  Shape s = {x.m, 0, x.k};
  for (int64_t i = 0; i < count; ++i) {
    weights[i] = operand_of(members[i], scales, round_up(s.n, kernel.nr));
    s.n = weights[i].start + weights[i].n;
  }
  if (s.m == 0 || s.n == 0) return;
  multiply({kernel, weights, count, s}, [&](int64_t first, int64_t rows, char* to) {
    quantize(kernel, x, first, rows, to, scales + first);
  });
}

Tensor int8_linear(const Tensor& input, const Tensor& packed, const Tensor& scale_w,
                   const OptionalTensor& bias, const OptionalTensor& residual, int64_t activation,
                   int64_t out_dtype) {
  checks::float_dtype("int8_linear", "x", input);
  checks::at_least_1d("int8_linear", "x", input);
  const Tensor x = dense(input);
  Member member = member_of("int8_linear", x, x.size(x.dim() - 1), packed, scale_w, bias, residual,
                            activation, out_dtype);
  const Tensor out = output_like(x, member.weight.n, out_dtype);
  member.weight.epilogue = epilogue_of(packed, member.operands, activation, out_dtype, out);
  Operand weight;
  multiply_linear(Rows(x), &member, &weight, 1);
  return out;
}

std::vector<Tensor> int8_linear_group(const Tensor& input, const std::vector<Tensor>& packed,
                                      const std::vector<Tensor>& scale_w,
                                      const std::vector<Tensor>& bias,
                                      const std::vector<int64_t>& activation, int64_t out_dtype) {
  const char* op = "int8_linear_group";
  STD_TORCH_CHECK(!packed.empty(), op, ": packed must hold at least 1 weight, but is empty");
  checks::float_dtype(op, "x", input);
  checks::at_least_1d(op, "x", input);
  checks::same_length(op, "scale_w", scale_w.size(), packed.size());
  checks::same_length(op, "activation", activation.size(), packed.size());
  if (!bias.empty()) checks::same_length(op, "bias", bias.size(), packed.size());
  const Tensor x = dense(input);
  const size_t count = packed.size();
  std::vector<Member> members;
  std::vector<Tensor> outs;
  for (size_t i = 0; i < count; ++i) {
    const OptionalTensor own_bias = bias.empty() ? OptionalTensor() : OptionalTensor(bias[i]);
    members.push_back(member_of(op, x, x.size(x.dim() - 1), packed[i], scale_w[i], own_bias,
                                OptionalTensor(), activation[i], out_dtype));
    outs.push_back(output_like(x, members[i].weight.n, out_dtype));
    members[i].weight.epilogue =
        epilogue_of(packed[i], members[i].operands, activation[i], out_dtype, outs[i]);
  }
  std::vector<Operand> weights(count);
  for (size_t first = 0, end; first < count; first = end) {  // weights of one layout at a time
    for (end = first + 1; end < count && members[end].kernel == members[first].kernel;) ++end;
    multiply_linear(Rows(x), &members[first], weights.data(), static_cast<int64_t>(end - first));
  }
  return outs;
}

// Both layers of a block of rows after one another, while its hidden values are in L2.
void multiply_mlp_block(const Rows& x, const Member& up, const Member& down, int64_t row,
                        int64_t rows, char* codes, char* hidden, float* scales) {
  Operand w_up = operand_of(up, scales, 0), w_down = operand_of(down, scales, 0);
  const Rows middle(hidden, up.weight.epilogue.out_type, rows, up.weight.n);
  w_up.epilogue.out = hidden;
  quantize(*up.kernel, x, row, rows, codes, scales);
  multiply_part({*up.kernel, &w_up, 1, {rows, w_up.n, x.k}}, codes, 0, rows, 0, w_up.n);
  quantize(*down.kernel, middle, 0, rows, codes, scales);
  advance_rows(&w_down.epilogue, row);
  w_down.epilogue.scale_a = scales;
  multiply_part({*down.kernel, &w_down, 1, {rows, w_down.n, middle.k}}, codes, 0, rows, 0,
                w_down.n);
}

int64_t row_bytes(const Member& member, int64_t k) {
  return round_up(k, kDepthStep) * code_bytes(member.kernel->codes);
}

// With at least so many rows for each thread, reading both weights costs less than sharing rows.
constexpr int64_t kMlpRows = 32;

void multiply_mlp(const Rows& x, Member& up, Member& down) {
  static thread_local Buffer code_buffer, hidden_buffer, scale_buffer;
  const Dtype type = up.weight.epilogue.out_type;
  const int64_t hidden_bytes = up.weight.n * dtype_bytes(type);
  const int64_t threads = threads_for({x.m, up.weight.n + down.weight.n, x.k});
  if (x.m < kMlpRows * threads) {  // one layer after the other
    void* hidden = hidden_buffer.get(x.m * hidden_bytes);
    up.weight.epilogue.out = hidden;
    Operand weight;
    multiply_linear(x, &up, &weight, 1);
    return multiply_linear(Rows(hidden, type, x.m, up.weight.n), &down, &weight, 1);
  }
  const int64_t mr = up.kernel->mr, units = (x.m + mr - 1) / mr;
  const Grid grid = {threads, 1, mr, 1, units, 1};
  const int64_t block = min64(mr * ((units - 1) / threads + 1), kBlockRows);
  const int64_t code_size = 64 + block * max64(row_bytes(up, x.k), row_bytes(down, up.weight.n));
  const int64_t hidden_size = round_up(block * hidden_bytes, 64);
  char* codes = static_cast<char*>(code_buffer.get(threads * code_size));
  char* hidden = static_cast<char*>(hidden_buffer.get(threads * hidden_size));
  float* scales = static_cast<float*>(scale_buffer.get(threads * block * 4));
  parallel_range(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row_end = grid.row_end(i, x.m);
      for (int64_t row = grid.row(i, x.m); row < row_end; row += block) {
        multiply_mlp_block(x, up, down, row, min64(block, row_end - row), codes + i * code_size,
                           hidden + i * hidden_size, scales + i * block);
      }
    }
  });
}

Tensor int8_mlp(const Tensor& input, const Tensor& packed_up, const Tensor& scale_up,
                const OptionalTensor& bias_up, int64_t activation, const Tensor& packed_down,
                const Tensor& scale_down, const OptionalTensor& bias_down,
                const OptionalTensor& residual, int64_t out_dtype) {
  const char* op = "int8_mlp";
  checks::float_dtype(op, "x", input);
  checks::at_least_1d(op, "x", input);
  const Tensor x = dense(input);
  Member up = member_of(op, x, x.size(x.dim() - 1), packed_up, scale_up, bias_up, OptionalTensor(),
                        activation, out_dtype);
  Member down =
      member_of(op, x, up.weight.n, packed_down, scale_down, bias_down, residual, 0, out_dtype);
  const Tensor out = output_like(x, down.weight.n, out_dtype);
  if (checks::rows_of(x) == 0 || down.weight.n == 0) return out;
  down.weight.epilogue = epilogue_of(packed_down, down.operands, 0, out_dtype, out);
  up.weight.epilogue = epilogue_of(packed_up, up.operands, activation, out_dtype, out);
  up.weight.epilogue.ld = up.weight.n;  // its output is scratch
  multiply_mlp(Rows(x), up, down);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("int8_linear", TORCH_BOX(&int8_linear));
  m.impl("int8_linear_group", TORCH_BOX(&int8_linear_group));
  m.impl("int8_mlp", TORCH_BOX(&int8_mlp));
}

}  // namespace pyops::cpu
