// A program over rows: linear layers and norms that each take whole rows, so that a block of rows
// can go through all of them while it is in L2. int8_rows runs one.
//
// Registers 0, 1, ... are the inputs, and then what each step makes, rows of out_dtype. A step is
// kStepInts integers; -1 means that there is none:
//
//   0, x, residual, gate, activation, 1 if there is a bias
//        activation(x w^T + bias + residual) * gate       tensors: packed w, scale_w, [bias]
//   1 (LayerNorm) or 2 (RMSNorm), x, -1, -1, 0, 1 if there is a weight + 2 if there is a bias
//        norm.h                                           tensors: [weight], [bias]
//
// The tensors of all steps follow one another in one list; eps has an entry per step.
#pragma once
#include <vector>

#include "cpu/int8_gemm/operands.h"

namespace pyops::cpu {

constexpr int64_t kStepInts = 6;

// A register. Scratch has `offset` bytes per row of a block before it.
struct RowValue {
  int64_t width;
  Dtype type;
  char* data;      // row 0 of an input or output; null for scratch
  int64_t offset;  // -1: read as codes alone, so that its rows are not kept
  int last;        // the step that reads its rows last

  int64_t row_bytes() const { return width * dtype_bytes(type); }
};

// A register in a kernel's form, from step `first` (which writes it) to step `last`.
struct RowCodes {
  int value;
  const Int8GemmKernel* kernel;
  int64_t offset;
  int first, last;
};

struct RowStep {
  bool linear;
  int x, y, residual, gate;
  int codes;  // of x, or (for a norm) none
  const Int8GemmKernel* kernel;
  Operand weight;  // of a linear layer; its epilogue lacks what depends on the row
  NormRow norm;    // lacks x and y
};

struct RowProgram {
  int64_t m;
  void (*norm_row)(const NormRow&);
  std::vector<RowValue> values;
  std::vector<RowStep> steps;
  std::vector<RowCodes> codes;
  std::vector<Tensor> kept;  // what the pointers point into
  std::vector<Tensor> outputs;
  int64_t scratch_bytes;  // per row of a block: registers and codes

  // Multiplications of one row.
  int64_t products() const;
};

// The integers and tensors of a call, checked: no value of them leads out of bounds.
RowProgram read_rows(const char* op, const std::vector<Tensor>& inputs,
                     const std::vector<Tensor>& tensors, const std::vector<int64_t>& steps,
                     const std::vector<double>& eps, const std::vector<int64_t>& outputs,
                     int64_t out_dtype);

// Gives registers and codes their scratch. With `keep` every register has rows, and no codes.
void lay_out(RowProgram* program, bool keep);

// Rows [first, first + count) of contiguous floats as codes in the kernel's form.
inline void quantize(const Int8GemmKernel& kernel, const void* x, Dtype type, int64_t k,
                     int64_t first, int64_t count, char* to, float* scales) {
  const int64_t row_bytes = k * dtype_bytes(type), k_padded = round_up(k, kDepthStep);
  const char* from = static_cast<const char*>(x) + first * row_bytes;
  for (int64_t r = 0; r < count; ++r) {
    kernel.quantize_row({from + r * row_bytes, type, k, k_padded, true, kernel.codes,
                         to + r * k_padded * code_bytes(kernel.codes), scales + r, nullptr});
  }
}

// A weight's operand in a product of rows with these scales.
inline Operand operand_of(const Int8GemmKernel& kernel, Operand weight, const float* scales,
                          int64_t start) {
  weight.start = start;
  weight.epilogue.scale_a = scales;
  weight.epilogue.scale_a_stride = 1;
  weight.epilogue.zero_shift = shift_of(kernel.codes, true);
  return weight;
}

// x, rows of contiguous floats, is quantized and multiplied by the weights: all of one kernel.
void multiply_rows(const Int8GemmKernel& kernel, const void* x, Dtype type, int64_t m, int64_t k,
                   Operand* weights, int64_t count);

}  // namespace pyops::cpu
