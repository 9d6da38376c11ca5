// scores() and values() by one tile of vectors: c[Rows][Vecs] (+)= a[Rows][depth] b[depth][Vecs],
// a's dwords broadcast. Needs kMr, kTileVecs, and dot(a, b, c) = c + a b (pairs: both products).

template <int Rows, int Vecs>
__attribute__((noinline)) void tile(const float* a, int64_t lda, const float* b, int64_t ldb,
                                    int64_t depth, bool add_to, float* c, int64_t ldc) {
  F32 acc[Rows][Vecs];
  PYOPS_UNROLL
  for (int r = 0; r < Rows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) acc[r][v] = add_to ? load(c + r * ldc + v * kLanes) : set1(0.0f);
  }
  for (int64_t d = 0; d < depth; ++d, b += ldb) {
    F32 line[Vecs];
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) line[v] = load(b + v * kLanes);
    PYOPS_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const F32 x = set1(a[r * lda + d]);
      PYOPS_UNROLL
      for (int v = 0; v < Vecs; ++v) acc[r][v] = dot(x, line[v], acc[r][v]);
    }
  }
  PYOPS_UNROLL
  for (int r = 0; r < Rows; ++r) {
    PYOPS_UNROLL
    for (int v = 0; v < Vecs; ++v) store(c + r * ldc + v * kLanes, acc[r][v]);
  }
}

using Tile = void (*)(const float*, int64_t, const float*, int64_t, int64_t, bool, float*, int64_t);

template <int Rows>
inline Tile tile_of(int64_t vecs) {
  if constexpr (kTileVecs > 4) {
    if (vecs == 5) return tile<Rows, 5>;
  }
  if constexpr (kTileVecs > 2) {
    if (vecs == 4) return tile<Rows, 4>;
    if (vecs == 3) return tile<Rows, 3>;
  }
  return vecs == 2 ? tile<Rows, 2> : tile<Rows, 1>;
}

inline Tile tile_of(int64_t rows, int64_t vecs) {
  if constexpr (kMr > 4) {
    if (rows == 6) return tile_of<6>(vecs);
    if (rows == 5) return tile_of<5>(vecs);
  }
  if constexpr (kMr > 3) {
    if (rows == 4) return tile_of<4>(vecs);
  }
  return rows == 3 ? tile_of<3>(vecs) : rows == 2 ? tile_of<2>(vecs) : tile_of<1>(vecs);
}

// c[rows][vecs] (+)= a b, in tiles of kMr rows.
inline void strip(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t depth,
                  bool add_to, int64_t rows, int64_t vecs, float* c, int64_t ldc) {
  const Tile whole = tile_of(kMr, vecs);
  int64_t r = 0;
  for (; r + kMr <= rows; r += kMr) {
    whole(a + r * lda, lda, b, ldb, depth, add_to, c + r * ldc, ldc);
  }
  if (r < rows) {
    tile_of(rows - r, vecs)(a + r * lda, lda, b, ldb, depth, add_to, c + r * ldc, ldc);
  }
}

void scores(const float* q, const float* k, int64_t depth, int64_t rows, int64_t keys, float* to,
            int64_t stride) {
  for (int64_t j = 0; j < keys; j += kNr, k += depth * kNr) {
    const int64_t vecs = (min64(kNr, keys - j) + kLanes - 1) / kLanes;
    strip(q, depth, k, kNr, depth, false, rows, vecs, to + j, stride);
  }
}

// A part of v that stays in L1 while all rows pass it.
constexpr int64_t kValueDwords = 6144;

void values(const float* weights, int64_t stride, const float* v, int64_t keys, int64_t depth,
            int64_t rows, bool add_to, float* acc) {
  const int64_t pairs = keys / kPair, part = max64(32, kValueDwords / depth);
  const int64_t vecs = depth / kLanes, tiles = (vecs + kTileVecs - 1) / kTileVecs;
  for (int64_t j = 0; j < pairs; j += part) {
    for (int64_t i = 0; i < tiles; ++i) {  // of even width: a narrow one has too few sums
      const int64_t begin = vecs * i / tiles, end = vecs * (i + 1) / tiles;
      strip(weights + j, stride, v + j * depth + begin * kLanes, depth, min64(part, pairs - j),
            add_to || j > 0, rows, end - begin, acc + begin * kLanes, depth);
    }
  }
}
