// A block for the levels without VNNI, of a cut weight (cut.h): per step of 4 k a vector takes
// vpmaddubsw, vpmaddwd with ones and vpaddd. Three instructions for 32 products a vector, against
// four where both sides are widened to int16 (madd_block.inl.h).
//
// The kernel file provides kMr, kTileVecs = 2, kTileCols = kTileVecs * kLanes = nr, and
//   I32 dot4(I32 a_u8, I32 w_s8, I32 ones_s16)   no pair of products leaves int16
//   void prefetch_w(const int8_t* p)

// A tile's part of w and of a (16 bytes per step and row) has to stay in L1.
constexpr int kDepth = 512;

// Adds what was cut away. A code itself is in the first four of the 16 bytes of its group.
template <int kRows>
inline void add_excess(const Excess* excess, const Excess* end, const char* a, int64_t lda_bytes,
                       int32_t* acc) {
  for (; excess < end; ++excess) {
    const int32_t value = excess->value;
    const char* code = a + excess->k / 4 * 16 + excess->k % 4;
    int32_t* to = acc + excess->col % kTileCols;
    PYOPS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int32_t product = static_cast<uint8_t>(code[r * lda_bytes]) * value;
      // Unsigned: sums wrap.
      to[r * kTileCols] = static_cast<int32_t>(static_cast<uint32_t>(to[r * kTileCols]) +
                                               static_cast<uint32_t>(product));
    }
  }
}

struct Stretch {
  const int8_t* w;
  int64_t w_step, steps;
  const uint8_t* offset;  // of each step: the window of a
  const Excess *excess, *excess_end;
};

// acc[r][v] += sum over steps of dot4(broadcast the window of a[r], w of columns v * kLanes ...)
// `a` is where k = 0 is, `at` where the stretch begins.
template <int kRows>
__attribute__((noinline)) void tile(const Stretch& s, const char* a, const char* at,
                                    int64_t lda_bytes, int32_t* acc) {
  const int8_t* w = s.w;
  const int64_t w_step = s.w_step;
  const uint8_t* offset = s.offset;
  I32 sum[kRows][kTileVecs];
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kTileVecs; ++v) sum[r][v] = load(acc + r * kTileCols + v * kLanes);
  }
  const I32 ones = set1_i32(0x00010001);
  for (const char* end = at + 16 * s.steps; at < end; at += 16, w += w_step) {
    const char* four = at + *offset++;
    const I32 w_first = load(reinterpret_cast<const int32_t*>(w));
    prefetch_w(w);
    PYOPS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      int32_t code;
      __builtin_memcpy(&code, four + r * lda_bytes, 4);
      const I32 a_u8 = set1_i32(code);
      sum[r][0] = add(sum[r][0], dot4(a_u8, w_first, ones));
      // Read anew for each row: 12 sums, ones, w, a and a product leave it no register.
      __asm__ volatile("" ::: "memory");
      const I32 w_second = load(reinterpret_cast<const int32_t*>(w) + kLanes);
      sum[r][1] = add(sum[r][1], dot4(a_u8, w_second, ones));
    }
  }
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kTileVecs; ++v) store(acc + r * kTileCols + v * kLanes, sum[r][v]);
  }
  add_excess<kRows>(s.excess, s.excess_end, a, lda_bytes, acc);
}

using TileFn = void (*)(const Stretch&, const char*, const char*, int64_t, int32_t*);

template <int kRows = kMr>
inline TileFn tile_of(int rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tile_of<kRows - 1>(rows);
  }
  return tile<kRows>;
}

// Half a byte for each step; whatever its bits, the window ends inside its group of 16 bytes.
inline void read_windows(const uint8_t* windows, int64_t steps, uint8_t* offset) {
  for (int64_t i = 0; i < steps; i += 2) {
    const int two = *windows++, first = two & 15, second = two >> 4;
    offset[i] = static_cast<uint8_t>(first < 12 ? first : 12);
    offset[i + 1] = static_cast<uint8_t>(second < 12 ? second : 12);
  }
}

inline void block_of_cuts(const Int8GemmBlock& b) {
  alignas(64) int32_t acc[kBlockRows * kTileCols];
  alignas(64) uint8_t offset[kDepth / 4];
  alignas(64) int32_t start[kTileCols] = {};
  for (int col = 0; col < b.cols; ++col) start[col] = b.start[col];
  for (int r = 0; r < b.rows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kTileVecs; ++v) {
      store(acc + r * kTileCols + v * kLanes, load(start + v * kLanes));
    }
  }
  prefetch_output(*b.epilogue, 0, b.rows, b.n0, b.cols);
  const int64_t tiles = (b.rows + kMr - 1) / kMr;
  Stretch s = {b.w, 4 * static_cast<int64_t>(b.stored_cols), 0, offset, b.excess, b.excess};
  for (int64_t k0 = 0; k0 < b.k; k0 += kDepth) {
    s.steps = min64(kDepth, b.k - k0) / 4;
    s.w = b.w + k0 * b.stored_cols;
    read_windows(b.windows + k0 / 8, s.steps, offset);
    s.excess = s.excess_end;
    while (s.excess_end < b.excess_end && s.excess_end->k < k0 + 4 * s.steps) ++s.excess_end;
    for (int64_t t = 0, r0 = 0; t < tiles; ++t) {
      const int rows = static_cast<int>((b.rows - r0) / (tiles - t));
      const char* a = static_cast<const char*>(b.a) + r0 * b.lda_bytes;
      tile_of(rows)(s, a, a + 4 * k0, b.lda_bytes, acc + r0 * kTileCols);
      r0 += rows;
    }
  }
  finish_for (*b.epilogue)(*b.epilogue, acc, kTileCols, 0, b.rows, b.n0, b.cols);
}
