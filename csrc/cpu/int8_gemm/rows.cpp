// int8_rows: a block of rows at a time through all steps, or all rows through step after step.
#include "cpu/int8_gemm/rows.h"

namespace pyops::cpu {
namespace {

// With at least so many rows for each thread, reading every weight costs less than sharing rows.
constexpr int64_t kRowsPerThread = 32;
// A block's scratch stays in L2 beside the panel of a weight that passes by.
constexpr int64_t kBlockBytes = 768 * 1024;
// Norms of fewer elements are not worth a second thread.
constexpr int64_t kSerialNorms = 1 << 16;

// Where the scratch of rows [first, first + capacity) is.
struct Frame {
  char* scratch;
  int64_t first, capacity;
  float* scales;  // [codes][capacity]
  char* row;      // of a register whose rows are not kept

  char* at(const RowValue& value, int64_t row_number) const {
    const int64_t bytes = value.row_bytes();
    if (value.data != nullptr) return value.data + row_number * bytes;
    return scratch + value.offset * capacity + (row_number - first) * bytes;
  }
  char* at(const RowCodes& codes) const { return scratch + codes.offset * capacity; }
  float* scales_of(int codes) const { return scales + codes * capacity; }
};

Operand operand_at(const RowProgram& p, const RowStep& step, const Frame& frame, int64_t row) {
  Operand w = step.weight;
  w.epilogue.out = frame.at(p.values[step.y], row);
  if (step.residual >= 0) {
    w.epilogue.residual = frame.at(p.values[step.residual], row);
    w.epilogue.residual_type = p.values[step.residual].type;
  }
  if (step.gate >= 0) {
    w.epilogue.gate = frame.at(p.values[step.gate], row);
    w.epilogue.gate_type = p.values[step.gate].type;
  }
  return w;
}

// One row, and its codes for the layers that read it while it is in L1.
void norm_row(const RowProgram& p, const RowStep& step, const Frame& frame, int64_t row) {
  const RowValue &x = p.values[step.x], &y = p.values[step.y];
  NormRow norm = step.norm;
  norm.x = frame.at(x, row);
  norm.x_type = x.type;
  norm.y = y.data == nullptr && y.offset < 0 ? frame.row : frame.at(y, row);
  p.norm_row(norm);
  for (size_t i = 0; i < p.codes.size(); ++i) {
    const RowCodes& codes = p.codes[i];
    if (codes.value != step.y) continue;
    const Int8GemmKernel& kernel = *codes.kernel;
    const int64_t at = row - frame.first, k_padded = round_up(y.width, kDepthStep);
    kernel.quantize_row({norm.y, y.type, y.width, k_padded, true, kernel.codes,
                         frame.at(codes) + at * k_padded * code_bytes(kernel.codes),
                         frame.scales_of(static_cast<int>(i)) + at, nullptr});
  }
}

void run_block(const RowProgram& p, const Frame& frame, int64_t rows) {
  const int64_t row = frame.first;
  for (size_t i = 0; i < p.steps.size(); ++i) {
    const RowStep& step = p.steps[i];
    if (!step.linear) {
      for (int64_t r = 0; r < rows; ++r) norm_row(p, step, frame, row + r);
      continue;
    }
    const RowValue& x = p.values[step.x];
    const RowCodes& codes = p.codes[step.codes];
    char* a = frame.at(codes);
    float* scales = frame.scales_of(step.codes);
    if (codes.first == static_cast<int>(i)) {
      quantize(*step.kernel, frame.at(x, row), x.type, x.width, 0, rows, a, scales);
    }
    const Operand w = operand_of(*step.kernel, operand_at(p, step, frame, row), scales, 0);
    multiply_part({*step.kernel, &w, 1, {rows, w.n, x.width}, step.kernel->codes}, a, 0, rows, 0,
                  w.n);
  }
}

// Whole tiles, and as many rows as fit; each thread has its own scratch.
int64_t block_rows(const RowProgram& p, int64_t mr, int64_t rows_of_thread) {
  const int64_t fit = kBlockBytes / (p.scratch_bytes + 1) / mr * mr;
  return min64(rows_of_thread, min64(kBlockRows, max64(fit, mr)));
}

void run_blocks(const RowProgram& p, int64_t threads) {
  static thread_local Buffer buffer;
  int64_t mr = 1, widest = 0;
  for (const RowStep& step : p.steps) {
    if (step.linear) mr = max64(mr, step.kernel->mr);
    widest = max64(widest, p.values[step.y].row_bytes());
  }
  const int64_t units = (p.m + mr - 1) / mr;
  const Grid grid = {threads, 1, mr, 1, units, 1};
  const int64_t block = block_rows(p, mr, mr * ((units - 1) / threads + 1));
  const int64_t count = static_cast<int64_t>(p.codes.size());
  // 64 bytes that a kernel may read behind the last codes.
  const int64_t row_at = block * p.scratch_bytes + 64, scales_at = row_at + round_up(widest, 64);
  const int64_t bytes = scales_at + round_up(count * block * 4, 64);
  char* memory = static_cast<char*>(buffer.get(threads * bytes));
  parallel_range(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      char* own = memory + i * bytes;
      const int64_t row_end = grid.row_end(i, p.m);
      for (int64_t row = grid.row(i, p.m); row < row_end; row += block) {
        const Frame frame = {own, row, block, reinterpret_cast<float*>(own + scales_at),
                             own + row_at};
        run_block(p, frame, min64(block, row_end - row));
      }
    }
  });
}

// The layers from step `first` on that read one register with one kernel, and none of each other.
size_t siblings_end(const RowProgram& p, size_t first) {
  const RowStep& one = p.steps[first];
  size_t end = first + 1;
  for (; end < p.steps.size(); ++end) {
    const RowStep& step = p.steps[end];
    if (!step.linear || step.x != one.x || step.kernel != one.kernel) break;
    if (step.residual >= one.y || step.gate >= one.y) break;
  }
  return end;
}

// The columns of each product are split over the threads.
void run_steps(const RowProgram& p) {
  static thread_local Buffer buffer;
  const Frame frame = {static_cast<char*>(buffer.get(p.m * p.scratch_bytes)), 0, p.m, nullptr,
                       nullptr};
  std::vector<Operand> weights;
  for (size_t i = 0; i < p.steps.size();) {
    const RowStep& step = p.steps[i];
    const RowValue& x = p.values[step.x];
    if (!step.linear) {
      parallel_range(p.m, kSerialNorms / (x.width + 1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) norm_row(p, step, frame, row);
      });
      ++i;
      continue;
    }
    weights.clear();
    for (const size_t end = siblings_end(p, i); i < end; ++i) {
      weights.push_back(operand_at(p, p.steps[i], frame, 0));
    }
    multiply_rows(*step.kernel, frame.at(x, 0), x.type, p.m, x.width, weights.data(),
                  static_cast<int64_t>(weights.size()));
  }
}

std::vector<Tensor> int8_rows(const std::vector<Tensor>& inputs, const std::vector<Tensor>& tensors,
                              const std::vector<int64_t>& steps, const std::vector<double>& eps,
                              const std::vector<int64_t>& outputs, int64_t out_dtype) {
  RowProgram p = read_rows("int8_rows", inputs, tensors, steps, eps, outputs, out_dtype);
  if (p.m == 0) return p.outputs;
  const int64_t threads = threads_for({p.m, p.products(), 1});
  const bool one_product = p.steps[0].linear && siblings_end(p, 0) == p.steps.size();
  // multiply() knows when sharing rows pays for one product; for several it pays with few rows.
  const bool blocks = !one_product && (threads == 1 || p.m >= kRowsPerThread * threads);
  lay_out(&p, !blocks);
  if (blocks) {
    run_blocks(p, threads);
  } else {
    run_steps(p);
  }
  return p.outputs;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) { m.impl("int8_rows", TORCH_BOX(&int8_rows)); }

}  // namespace pyops::cpu
