// How a product is cut into parts, one per thread.
#pragma once
#include "cpu/int8_gemm/int8_gemm.h"

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

// The split whose largest part is smallest. Among equals the one with the most columns parts: each
// thread then reads its own share of w, which may stay in its L2 from call to call.
inline Grid split(const Int8GemmKernel& kernel, const Shape& s, int64_t threads) {
  Grid grid = {1, 1, kernel.mr, kernel.nr % 16 == 0 ? 16 : kernel.nr, 0, 0};
  grid.row_units = (s.m + grid.row_unit - 1) / grid.row_unit;
  grid.col_units = (s.n + grid.col_unit - 1) / grid.col_unit;
  int64_t best_cost = grid.row_units * grid.col_units;
  for (int64_t tn = threads; tn >= 1; --tn) {
    const int64_t tm = threads / tn;
    const int64_t rows = (grid.row_units + tm - 1) / tm, cols = (grid.col_units + tn - 1) / tn;
    if (rows * cols < best_cost) {
      best_cost = rows * cols;
      grid.tm = tm;
      grid.tn = tn;
    }
  }
  return grid;
}

// Lets row 0 of the epilogue be what was row `rows`.
inline void advance_rows(Epilogue* e, int64_t rows) {
  e->out = static_cast<char*>(e->out) + rows * e->ld * dtype_bytes(e->out_type);
  if (e->residual) {
    e->residual =
        static_cast<const char*>(e->residual) + rows * e->ld * dtype_bytes(e->residual_type);
  }
  if (e->scale_a) e->scale_a += rows * e->scale_a_stride;
  if (e->zero_a) e->zero_a += rows * e->zero_a_stride;
}

}  // namespace pyops::cpu
