// Rows of a product as the pixels of a strip, for kernels that take taps.
#pragma once
#include <cstring>
#include <vector>

#include "cpu/int8_gemm/int8_gemm.h"
#include "guarded.h"

using namespace pyops::cpu;

// With a plane for each tap: code i of row r is code i % depth of place(r) in plane i / depth.
struct Strip {
  std::vector<int64_t> at;
  Taps taps;
  int64_t places;

  Strip(int64_t rows, int64_t count, int64_t depth) {
    const int64_t width = uniform(1, 40), pitch = width + (coin() ? 0 : uniform(1, 5));
    taps = {width, pitch, uniform(0, width - 1), count, depth, nullptr};
    places = taps.place(rows - 1) + 1;
    for (int64_t t = 0; t < count; ++t) at.push_back(t * places * depth);
    taps.at = at.data();
  }

  void write(const char* rows, int64_t count, int64_t lda, char* to) const {
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t t = 0; t < taps.count; ++t) {
        std::memcpy(to + at[t] + taps.place(r) * taps.depth, rows + r * lda + t * taps.depth,
                    taps.depth);
      }
    }
  }
};
