// A product on torch's threads: bring rows of a into the kernel's form, multiply part by part. Only
// driver.cpp includes this.
#pragma once
#include "cpu/common/buffer.h"
#include "cpu/common/driver.h"
#include "cpu/int8_gemm/pack.h"
#include "cpu/int8_gemm/partition.h"
#include "cpu/int8_sparse_gemm/panels.h"

namespace pyops::cpu {

// Rows of a in a kernel's form stay in L2 while every panel of w passes by.
constexpr int64_t kChunkBytes = 512 * 1024;
// Below so many products a second thread costs more than it saves.
constexpr int64_t kSerialProducts = 1 << 20;

inline int64_t threads_for(const Shape& s) {
  return s.m * s.n * s.k < kSerialProducts ? 1 : num_threads();
}

// One weight [n, K], packed for the product's kernel, and what happens to its sums. Its columns are
// columns start, start + 1, ... of the product; start is a multiple of nr.
struct Operand {
  const void* packed;
  int64_t n, start;
  Epilogue epilogue;
  int64_t group = 0;  // of a sparse weight
};

// a [m, K] times the weights of all operands: one quantization, one split over threads. shape.n
// counts the columns up to the last operand's end.
struct Product {
  const Int8GemmKernel& kernel;
  const Operand* operands;
  int64_t count;
  Shape shape;
  Codes codes;  // the form of a
  // Rows of a where they stand: bytes from one to the next (0: padded to kDepthStep), and taps.
  int64_t lda = 0;
  const Taps* taps = nullptr;

  int64_t lda_bytes() const {
    return lda ? lda : round_up(shape.k, kDepthStep) * code_bytes(codes);
  }
};

// How many rows in the kernel's form make a chunk: whole tiles, at least one.
inline int64_t rows_that_fit(const Product& p) {
  const int64_t mr = p.kernel.mr, lda_bytes = p.lda_bytes();
  const int64_t fit = lda_bytes ? kChunkBytes / lda_bytes / mr * mr : p.shape.m;
  return fit > mr ? fit : mr;
}

// Panels of a sparse weight that are multiplied in one call, and about how many bytes of it: they
// stay in L2 while tiles of rows pass.
constexpr int kPanelsTogether = 32;
constexpr int64_t kPanelsBytes = 384 << 10;

// As multiply_columns.
inline void multiply_panels(const Product& p, const Operand& w, const Epilogue& epilogue,
                            const char* a, int64_t rows, int64_t col, int64_t col_end) {
  const Int8GemmKernel& kernel = p.kernel;
  Int8GemmBlock blocks[kPanelsTogether];
  for (int64_t n0 = col, stop; n0 < col_end;) {
    int64_t bytes = 0;
    int count = 0;
    for (; n0 < col_end && count < kPanelsTogether && bytes < kPanelsBytes; n0 = stop) {
      stop = min64((n0 / kernel.nr + 1) * kernel.nr, col_end);
      Int8GemmBlock& b = blocks[count++];
      b = {a,
           p.codes,
           p.lda_bytes(),
           nullptr,
           0,
           packed_depth(p.shape.k, kernel.kr),
           static_cast<int>(rows),
           static_cast<int>(stop - n0),
           n0,
           &epilogue};
      b.taps = p.taps;
      find_panel(w.packed, w.group, n0, &b);
      bytes += b.steps * b.step_bytes;
    }
    blocks[0].panels = count;
    kernel.block(blocks[0]);
  }
}

// Columns [col, col_end) of one operand by `rows` rows of a; row 0 of the epilogue is the first.
inline void multiply_columns(const Product& p, const Operand& w, const Epilogue& epilogue,
                             const char* a, int64_t rows, int64_t col, int64_t col_end) {
  const Int8GemmKernel& kernel = p.kernel;
  if (kernel.sparse) return multiply_panels(p, w, epilogue, a, rows, col, col_end);
  PackedCut cut = {};
  if (kernel.cut) cut = packed_cut(w.packed);
  for (int64_t n0 = col; n0 < col_end;) {
    const int64_t panel = n0 / kernel.nr * kernel.nr;
    const int64_t stored = min64(kernel.nr, w.n - panel);
    const int64_t stop = min64(panel + stored, col_end);
    Int8GemmBlock block = {a,
                           p.codes,
                           p.lda_bytes(),
                           packed_panel(w.packed, panel) + (n0 - panel) * kernel.kr,
                           static_cast<int>(stored),
                           packed_depth(p.shape.k, kernel.kr),
                           static_cast<int>(rows),
                           static_cast<int>(stop - n0),
                           n0,
                           &epilogue,
                           n0 == col,
                           stop == col_end};
    block.taps = p.taps;
    if (kernel.cut) add_cut(&block, cut, panel / kernel.nr, p.shape.k, n0);
    kernel.block(block);
    n0 = stop;
  }
}

// Rows [row, row + rows) by columns [col, col_end), from rows `a` in the kernel's form.
inline void multiply_part(const Product& p, const char* a, int64_t row, int64_t rows, int64_t col,
                          int64_t col_end) {
  for (int64_t i = 0; i < p.count; ++i) {
    const Operand& w = p.operands[i];
    Epilogue epilogue = w.epilogue;
    advance_rows(&epilogue, row);
    const int64_t first = col > w.start ? col - w.start : 0;
    multiply_columns(p, w, epilogue, a, rows, first, min64(col_end - w.start, w.n));
  }
}

// Threads take rows: each brings its own into the kernel's form, a block at a time.
template <class Prepare>
void multiply_by_rows(const Product& p, const Grid& grid, const Prepare& prepare) {
  static thread_local Buffer buffer;
  const int64_t lda_bytes = p.lda_bytes(), m = p.shape.m;
  const int64_t block = min64(grid.row_unit * ((grid.row_units - 1) / grid.tm + 1),
                              min64(kBlockRows, rows_that_fit(p)));
  char* codes = static_cast<char*>(buffer.get(grid.tm * block * lda_bytes + 64));
  parallel_range(grid.tm, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      char* own = codes + i * block * lda_bytes;
      const int64_t row_end = grid.row_end(i, m);
      for (int64_t row = grid.row(i, m); row < row_end; row += block) {
        const int64_t rows = min64(block, row_end - row);
        prepare(row, rows, own);
        multiply_part(p, own, row, rows, 0, p.shape.n);
      }
    }
  });
}

// Rows [m0, m0 + rows) of the product, from rows `codes` in the kernel's form.
inline void multiply_prepared(const Product& p, const char* codes, int64_t m0, int64_t rows) {
  const Shape s = {rows, p.shape.n, p.shape.k};
  const Grid grid = split(p.kernel, s, threads_for(s));
  parallel_range(grid.tm * grid.tn, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row_end = grid.row_end(i, rows);
      for (int64_t row = grid.row(i, rows); row < row_end; row += kBlockRows) {
        multiply_part(p, codes + row * p.lda_bytes(), m0 + row, min64(kBlockRows, row_end - row),
                      grid.col(i, s.n), grid.col_end(i, s.n));
      }
    }
  });
}

// Threads share rows: all are brought into the kernel's form first, a chunk at a time.
template <class Prepare>
void multiply_by_grid(const Product& p, const Prepare& prepare) {
  static thread_local Buffer buffer;
  const int64_t lda_bytes = p.lda_bytes();
  const int64_t chunk = min64(p.shape.m, rows_that_fit(p));
  char* codes = static_cast<char*>(buffer.get(chunk * lda_bytes + 64));
  for (int64_t m0 = 0; m0 < p.shape.m; m0 += chunk) {
    const int64_t rows = min64(chunk, p.shape.m - m0);
    parallel_range(rows, kSerialCodes / (p.shape.k + 1), [&](int64_t begin, int64_t end) {
      prepare(m0 + begin, end - begin, codes + begin * lda_bytes);
    });
    multiply_prepared(p, codes, m0, rows);
  }
}

// out = epilogue(a w^T) of every operand; prepare(first, count, to) writes rows of a in the
// kernel's form.
template <class Prepare>
void multiply(const Product& p, const Prepare& prepare) {
  const Grid grid = split(p.kernel, p.shape, threads_for(p.shape));
  if (grid.tn == 1) {
    multiply_by_rows(p, grid, prepare);
  } else {
    multiply_by_grid(p, prepare);
  }
}

}  // namespace pyops::cpu
