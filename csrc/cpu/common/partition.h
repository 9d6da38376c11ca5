// How a product is cut into parts, one per thread.
#pragma once
#include "cpu/common/epilogue.h"

namespace pyops::cpu {

struct Shape {
  int64_t m, n, k;
};

// What thread i of a tm x tn grid computes: whole units of rows and of columns.
struct Grid {
  int64_t tm, tn, row_unit, col_unit, row_units, col_units;

  static int64_t cut(int64_t units, int64_t parts, int64_t i) { return units * i / parts; }
  int64_t row(int64_t i, int64_t m) const {
    return min64(m, cut(row_units, tm, i / tn) * row_unit);
  }
  int64_t row_end(int64_t i, int64_t m) const {
    return min64(m, cut(row_units, tm, i / tn + 1) * row_unit);
  }
  int64_t col(int64_t i, int64_t n) const {
    return min64(n, cut(col_units, tn, i % tn) * col_unit);
  }
  int64_t col_end(int64_t i, int64_t n) const {
    return min64(n, cut(col_units, tn, i % tn + 1) * col_unit);
  }
};

// Lets row 0 of the epilogue be what was row `rows`.
inline void advance_rows(Epilogue* e, int64_t rows) {
  e->out = static_cast<char*>(e->out) + rows * e->ld * dtype_bytes(e->out_type);
  if (e->residual) {
    e->residual =
        static_cast<const char*>(e->residual) + rows * e->ld * dtype_bytes(e->residual_type);
  }
  if (e->gate) {
    e->gate = static_cast<const char*>(e->gate) + rows * e->ld * dtype_bytes(e->gate_type);
  }
  if (e->scale_a) e->scale_a += rows * e->scale_a_stride;
  if (e->zero_a) e->zero_a += rows * e->zero_a_stride;
}

// Lets column 0 of the epilogue be what was column `cols`; w_sum is left as it is.
inline void advance_columns(Epilogue* e, int64_t cols) {
  e->out = static_cast<char*>(e->out) + cols * dtype_bytes(e->out_type);
  if (e->residual) {
    e->residual = static_cast<const char*>(e->residual) + cols * dtype_bytes(e->residual_type);
  }
  if (e->gate) e->gate = static_cast<const char*>(e->gate) + cols * dtype_bytes(e->gate_type);
  if (e->scale_w) e->scale_w += cols;
  if (e->bias) e->bias += cols;
  if (e->slope) e->slope += cols * e->slope_stride;
}

}  // namespace pyops::cpu
