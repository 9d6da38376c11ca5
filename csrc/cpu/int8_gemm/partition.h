// Which parts of an int8 product the threads take.
#pragma once
#include "cpu/common/partition.h"
#include "cpu/int8_gemm/int8_gemm.h"

namespace pyops::cpu {

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

}  // namespace pyops::cpu
