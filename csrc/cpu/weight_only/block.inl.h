// A block on vectors with columns in lanes. Include after epilogue_float.inl.h.
//
// Few rows: a tile of kMr rows decodes the panel in registers, once for all its rows. Per 16
// weights that is a shift, a table lookup and a multiply-add on the two ports that AVX-512 has, and
// at one row this keeps up with memory. Many rows: a part of the panel is turned into floats once,
// in L1, and passes all rows.
//
// The kernel file provides kMr, kTileVecs, kTileCols = kTileVecs * kLanes = nr, and
//   F32 fma(F32 a, F32 b, F32 c)          a * b + c, rounded once
//   F32 widen_codes(const uint8_t* p)     kLanes int8 as floats
//   F32 nibble<i>(I32 words)              bits 4 i ... 4 i + 3 of each lane, signed, as float

// What a tile reads at one row and one step of k streams from memory: the next page has to be under
// way before the hardware sees it touched.
constexpr int64_t kAhead = 4096;

template <int kBytes>
inline void prefetch_w(const uint8_t* w) {
  PYOPS_UNROLL
  for (int i = 0; i < kBytes; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(w) + kAhead + i, _MM_HINT_T0);
  }
}

template <int kRows, int kVecs>
inline void clear(F32 (&sum)[kRows][kVecs]) {
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) sum[r][v] = set1(0.0f);
  }
}

template <int kRows, int kVecs>
inline void store_sums(const F32 (&sum)[kRows][kVecs], float* sums) {
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) store(sums + r * kTileCols + v * kLanes, sum[r][v]);
  }
}

// The floats of one k: vector v of the columns.
template <int kI>
struct WordCodes {
  const uint8_t* words;
  F32 vec(int v) const {
    return nibble<kI>(load(reinterpret_cast<const int32_t*>(words) + v * kLanes));
  }
};
struct ByteCodes {
  const uint8_t* codes;
  F32 vec(int v) const { return widen_codes(codes + v * kLanes); }
};

// sum[r][v] += x[r] * w[v]
template <int kRows, int kVecs, class Codes>
__attribute__((always_inline)) inline void add_products(const Codes& codes, const float* x,
                                                        int64_t ldx, F32 (&sum)[kRows][kVecs]) {
  PYOPS_UNROLL
  for (int v = 0; v < kVecs; ++v) {
    const F32 w = codes.vec(v);
    PYOPS_UNROLL
    for (int r = 0; r < kRows; ++r) sum[r][v] = fma(w, set1(x[r * ldx]), sum[r][v]);
    // gcc would hold x for several k at once and run out of registers: 291 spills in int4_tile of
    // 6 x 4. To broadcast from L1 again costs nothing: one load to a multiply-add.
    __asm__ volatile("" : : : "memory");
  }
}

template <int kRows, int kVecs, int kI = 0>
__attribute__((always_inline)) inline void add_words(const uint8_t* words, const float* x,
                                                     int64_t ldx, F32 (&sum)[kRows][kVecs]) {
  add_products(WordCodes<kI>{words}, x + kI, ldx, sum);
  if constexpr (kI + 1 < kWeightDepth) add_words<kRows, kVecs, kI + 1>(words, x, ldx, sum);
}

// sums += scale * (sum - zero * x_sums)
template <int kRows, int kVecs>
inline void add_group(F32 (&sum)[kRows][kVecs], const float* scale, const uint8_t* zero,
                      const float* x_sums, int64_t ld_sums, float* sums) {
  PYOPS_UNROLL
  for (int v = 0; v < kVecs; ++v) {
    const F32 scale_v = load(scale + v * kLanes);
    const F32 zero_v = zero ? widen_codes(zero + v * kLanes) : set1(0.0f);
    PYOPS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float* at = sums + r * kTileCols + v * kLanes;
      F32 value = sum[r][v];
      if (zero) value = fma(zero_v, set1(-x_sums[r * ld_sums]), value);
      store(at, fma(scale_v, value, load(at)));
    }
  }
}

// Rows row ..., columns col ... of the panel; sums [kMr][kTileCols] from there.
template <int kRows, int kVecs>
__attribute__((noinline)) void int4_tile(const WeightBlock& b, int64_t row, int col, float* sums) {
  const uint8_t* group = b.w;
  const float *x = b.x + row * b.ldx, *x_sums = b.x_sums + row * b.ld_sums;
  const int64_t ldx = b.ldx, step = 4 * b.cols;
  F32 sum[kRows][kVecs];
  clear(sum);
  store_sums(sum, sums);
  for (int64_t k0 = 0; k0 < b.k; k0 += b.format.group, ++x_sums) {
    const int64_t depth = min64(b.format.group, b.k - k0);
    const GroupParts parts = group_parts(depth, b.cols, b.format.zeros);
    const uint8_t* w = group + 4 * col;
    clear(sum);
    for (int64_t k = 0; k < depth; k += kWeightDepth, w += step, x += kWeightDepth) {
      prefetch_w<4 * kVecs * kLanes>(w);
      add_words(w, x, ldx, sum);
    }
    const uint8_t* zero = b.format.zeros ? group + parts.zero + col : nullptr;
    add_group(sum, reinterpret_cast<const float*>(group + parts.scale) + col, zero, x_sums,
              b.ld_sums, sums);
    group += parts.bytes;
  }
}

template <int kRows, int kVecs>
__attribute__((noinline)) void int8_tile(const WeightBlock& b, int64_t row, int col, float* sums) {
  const uint8_t* w = b.w + col;
  const float* x = b.x + row * b.ldx;
  const int64_t ldx = b.ldx, step = b.cols;
  F32 sum[kRows][kVecs];
  clear(sum);
  int64_t k = 0;
  for (; k + 2 <= b.k; k += 2, w += 2 * step) {
    prefetch_w<2 * kVecs * kLanes>(w);
    add_products(ByteCodes{w}, x + k, ldx, sum);
    add_products(ByteCodes{w + step}, x + k + 1, ldx, sum);
  }
  if (k < b.k) add_products(ByteCodes{w}, x + k, ldx, sum);
  store_sums(sum, sums);
}

// sums += x [rows][depth] * w [depth][kTileCols], from column `col` of w and sums on.
template <int kRows, int kVecs>
__attribute__((noinline)) void float_tile(const float* x, int64_t ldx, const float* w,
                                          int64_t depth, float* sums) {
  F32 sum[kRows][kVecs];
  PYOPS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) sum[r][v] = load(sums + r * kTileCols + v * kLanes);
  }
  for (int64_t k = 0; k < depth; ++k, w += kTileCols, ++x) {
    F32 w_v[kVecs];
    PYOPS_UNROLL
    for (int v = 0; v < kVecs; ++v) w_v[v] = load(w + v * kLanes);
    PYOPS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const F32 x_r = set1(x[r * ldx]);
      PYOPS_UNROLL
      for (int v = 0; v < kVecs; ++v) sum[r][v] = fma(w_v[v], x_r, sum[r][v]);
    }
  }
  store_sums(sum, sums);
}

inline void decode_int8(const WeightBlock& b, int64_t k0, int64_t depth, float* out) {
  const uint8_t* w = b.w + k0 * b.cols;
  for (int64_t k = 0; k < depth; ++k, w += b.cols, out += kTileCols) {
    for (int col = 0; col < b.cols; col += kLanes) store(out + col, widen_codes(w + col));
  }
}

struct ColumnFormat {
  F32 scale, zero;
};

template <int kI = 0>
__attribute__((always_inline)) inline void decode_words(I32 words, const ColumnFormat& f,
                                                        float* out) {
  store(out + kI * kTileCols, mul(sub(nibble<kI>(words), f.zero), f.scale));
  if constexpr (kI + 1 < kWeightDepth) decode_words<kI + 1>(words, f, out);
}

// One group: floats (q - zero) * scale. Past `depth` up to a multiple of kWeightDepth `out` is
// written too.
inline void decode_int4(const WeightBlock& b, const uint8_t* group, const GroupParts& parts,
                        int64_t depth, float* out) {
  for (int col = 0; col < b.cols; col += kLanes) {
    const float* scale = reinterpret_cast<const float*>(group + parts.scale) + col;
    const uint8_t* zero = group + parts.zero + col;
    const ColumnFormat f = {load(scale), b.format.zeros ? widen_codes(zero) : set1(0.0f)};
    const uint8_t* w = group + 4 * col;
    for (int64_t k = 0; k < depth; k += kWeightDepth, w += 4 * b.cols) {
      decode_words(load(reinterpret_cast<const int32_t*>(w)), f, out + k * kTileCols + col);
    }
  }
}

// Columns come in vectors: four, two or one at a time.
inline int vecs_from(const WeightBlock& b, int col) {
  const int left = (b.cols - col + kLanes - 1) / kLanes;
  return left >= kTileVecs ? kTileVecs : left >= 2 ? 2 : 1;
}

enum class Tile { int8, int4, decoded };

struct TilePart {
  const WeightBlock* block;
  int64_t row, k, depth;
  int col;
  const float* floats;  // decoded: [depth][kTileCols]
  float* sums;          // of row 0, column 0
};

template <Tile kTile, int kRows, int kVecs>
inline void tile(const TilePart& p) {
  const WeightBlock& b = *p.block;
  float* sums = p.sums + p.row * kTileCols + p.col;
  if constexpr (kTile == Tile::int8) {
    int8_tile<kRows, kVecs>(b, p.row, p.col, sums);
  } else if constexpr (kTile == Tile::int4) {
    int4_tile<kRows, kVecs>(b, p.row, p.col, sums);
  } else {
    const float* x = b.x + p.row * b.ldx + p.k;
    float_tile<kRows, kVecs>(x, b.ldx, p.floats + p.col, p.depth, sums);
  }
}

template <Tile kTile, int kVecs, int kRows = kMr>
inline void tile_of_rows(const TilePart& p, int rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return tile_of_rows<kTile, kVecs, kRows - 1>(p, rows);
  }
  tile<kTile, kRows, kVecs>(p);
}

// All rows and columns of the block, in tiles of about equally many rows.
template <Tile kTile>
inline void all_tiles(TilePart p) {
  const WeightBlock& b = *p.block;
  const int64_t tiles = (b.rows + kMr - 1) / kMr;
  p.row = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    const int rows = static_cast<int>((b.rows - p.row) / (tiles - t));
    for (p.col = 0; p.col < b.cols;) {
      const int vecs = vecs_from(b, p.col);
      switch (vecs) {
        case kTileVecs: tile_of_rows<kTile, kTileVecs>(p, rows); break;
        case 2: tile_of_rows<kTile, 2>(p, rows); break;
        default: tile_of_rows<kTile, 1>(p, rows);
      }
      p.col += vecs * kLanes;
    }
    p.row += rows;
  }
}

inline void decoded_sums(TilePart p) {
  alignas(64) float floats[kDecodeDepth * kTileCols];
  const WeightBlock& b = *p.block;
  const uint8_t* group = b.w;
  p.floats = floats;
  for (int64_t i = 0; i < b.rows * kTileCols; ++i) p.sums[i] = 0.0f;
  for (p.k = 0; p.k < b.k; p.k += kDecodeDepth) {
    p.depth = min64(kDecodeDepth, b.k - p.k);
    if (b.format.bits == 8) decode_int8(b, p.k, p.depth, floats);
    for (int64_t k = 0; b.format.bits == 4 && k < p.depth; k += b.format.group) {
      const int64_t depth = min64(b.format.group, p.depth - k);
      const GroupParts parts = group_parts(depth, b.cols, b.format.zeros);
      decode_int4(b, group, parts, depth, floats + k * kTileCols);
      group += parts.bytes;
    }
    all_tiles<Tile::decoded>(p);
  }
}

inline void block_of_tiles(const WeightBlock& b) {
  alignas(64) float sums[kWeightRows * kTileCols];
  TilePart p = {&b, 0, 0, 0, 0, nullptr, sums};
  prefetch_output(*b.epilogue, 0, b.rows, b.n0, b.cols);
  if (b.decode) {
    decoded_sums(p);
  } else if (b.format.bits == 8) {
    all_tiles<Tile::int8>(p);
  } else {
    all_tiles<Tile::int4>(p);
  }
  finish_float_for (*b.epilogue)(*b.epilogue, sums, kTileCols, 0, b.rows, b.n0, b.cols);
}
