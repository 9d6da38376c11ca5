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

// What a thread waits for beside its products, in rows of K bytes: its share of w, and, where it
// shares rows of a with other threads, those rows, twice over: they come out of another core's
// cache where they have just been written.
inline int64_t traffic(const Shape& s, int64_t tm, int64_t tn) {
  return s.n / tn + (tn > 1 ? 2 * s.m / tm : 0);
}

// The split with the least traffic among those whose largest part is within 5 % of the smallest.
inline Grid split(const Int8GemmKernel& kernel, const Shape& s, int64_t threads) {
  Grid grid = {1, 1, kernel.mr, kernel.nr % 16 == 0 ? 16 : kernel.nr, 0, 0};
  grid.row_units = (s.m + grid.row_unit - 1) / grid.row_unit;
  grid.col_units = (s.n + grid.col_unit - 1) / grid.col_unit;
  const auto largest_part = [&](int64_t tn) {
    const int64_t tm = threads / tn;
    return ((grid.row_units + tm - 1) / tm) * ((grid.col_units + tn - 1) / tn);
  };
  int64_t smallest = largest_part(1), best = -1;
  for (int64_t tn = 2; tn <= threads; ++tn) smallest = min64(smallest, largest_part(tn));
  for (int64_t tn = 1; tn <= threads; ++tn) {
    const int64_t tm = threads / tn;
    if (largest_part(tn) * 20 > smallest * 21) continue;
    if (best >= 0 && traffic(s, tm, tn) >= best) continue;
    best = traffic(s, tm, tn);
    grid.tm = tm;
    grid.tn = tn;
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
  if (e->gate) {
    e->gate = static_cast<const char*>(e->gate) + rows * e->ld * dtype_bytes(e->gate_type);
  }
  if (e->scale_a) e->scale_a += rows * e->scale_a_stride;
  if (e->zero_a) e->zero_a += rows * e->zero_a_stride;
}

}  // namespace pyops::cpu
