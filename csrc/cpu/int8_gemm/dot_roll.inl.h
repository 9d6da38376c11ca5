// Tiles whose sums become codes straight from registers, one after the other. The codes of a whole
// tile are more instructions than a CPU looks ahead: nothing would be multiplied meanwhile. So rows
// take turns: row r of a tile begins kLag * r steps into the panel, and ends as far into its next
// pass, where the same row of the next tile begins. With kLag = 2, of tiles A and B:
//
//   steps   0  1  2  3  4  5  6 ... last   0  1  2  3  4  5  6 ...
//   row 0   A  A  A  A  A  A  A       A    B  B  B  B  B  B  B
//   row 1         A  A  A  A  A       A    A  A  B  B  B  B  B
//   row 2               A  A  A       A    A  A  A  A  B  B  B
//
// dot_block.inl.h includes this.

constexpr int kLag = 2;

// How many of the tiles roll. What is left makes two tiles, where it is not a tile's rows.
inline int64_t rolled_tiles(const Int8GemmBlock& b, const Places& places) {
  const int64_t whole = b.rows / kMr, rolled = b.rows % kMr == 0 ? whole : whole - 1;
  const bool fits = b.cols == kTileCols && places.depth >= 4 * kLag * kMr;
  return fits && rolled > 1 ? rolled : 0;
}

// What the tiles share; rows and direct go on to the first row behind them.
struct Roll {
  const Int8GemmBlock& b;
  const Places& places;
  const int32_t* start;
  RowPlaces* rows;
  DirectTile* direct;
};

struct RollTile {
  I32 sum[kMr][kTileVecs];
  const uint8_t* row[kMr];
  const int8_t* w;
  Ahead ahead;
  int64_t done, begun;  // elements of the output before the next row that ends, and that begins
};

// Step at codes [x, x + 4) of rows [begin, end).
inline __attribute__((always_inline)) void roll_step(RollTile* tile, int begin, int end, int64_t x,
                                                     int64_t w_step) {
  I32 w_s8[kTileVecs];
  PYOPS_UNROLL
  for (int v = 0; v < kTileVecs; ++v) w_s8[v] = load_w(tile->w + v * kLanes * 4);
  PYOPS_UNROLL
  for (int r = 0; r < kMr; ++r) {
    if (r < begin || r >= end) continue;
    int32_t four;
    __builtin_memcpy(&four, tile->row[r] + x, 4);
    const I32 a_u8 = set1_i32(four);
    PYOPS_UNROLL
    for (int v = 0; v < kTileVecs; ++v) tile->sum[r][v] = dot4(tile->sum[r][v], a_u8, w_s8[v]);
  }
  tile->w += w_step;
}

// The turns of all rows: kOld: their codes are made; kNew: they begin with the next tile.
template <Direct kDirect, bool kAhead, bool kOld, bool kNew>
inline __attribute__((always_inline)) void take_turns(const Roll& roll, RollTile* tile,
                                                      const int64_t* next, int64_t w_step) {
  tile->w = roll.b.w;
  const uint8_t* a = static_cast<const uint8_t*>(roll.b.a) + roll.places.tap[0];
  PYOPS_UNROLL
  for (int r = 0; r < kMr; ++r) {
    if constexpr (kOld) {
      store_direct<kDirect, kTileVecs, true>(*roll.direct, tile->done, tile->sum[r]);
      tile->done += roll.direct->ld;
    }
    if constexpr (kNew) {
      __builtin_prefetch(roll.direct->out + tile->begun, 1);
      tile->begun += roll.direct->ld;
      tile->row[r] = a + next[r];
      PYOPS_UNROLL
      for (int v = 0; v < kTileVecs; ++v) tile->sum[r][v] = load(roll.start + v * kLanes);
    }
    PYOPS_UNROLL
    for (int i = 0; i < kLag; ++i) {
      if (kAhead && kNew) prefetch<kOld ? 64 : 4 * kTileCols>(&tile->ahead);
      const int begin = kNew ? 0 : r + 1, end = kOld ? kMr : r + 1;
      roll_step(tile, begin, end, 4 * (kLag * r + i), w_step);
    }
  }
}

template <Direct kDirect, bool kAhead>
__attribute__((noinline)) void roll_tiles(const Roll& roll, int64_t tiles, Ahead first,
                                          Ahead others) {
  RollTile tile;
  int64_t next[kMr];
  const int64_t w_step = static_cast<int64_t>(roll.b.stored_cols) * 4;
  const int64_t taps = roll.places.taps, depth = roll.places.depth;
  const int64_t* tap = roll.places.tap;
  tile.ahead = first;
  tile.done = tile.begun = 0;
  for (int64_t i = 0; i < tiles; ++i) {
    roll.rows->next(kMr, next);
    if (i == 0) {
      take_turns<kDirect, kAhead, false, true>(roll, &tile, next, w_step);
    } else {
      take_turns<kDirect, kAhead, true, true>(roll, &tile, next, w_step);
    }
    int64_t x = 4 * kLag * kMr;
    for (int64_t t = 0;;) {
      const int64_t end = tap[t] - tap[0] + depth;
      for (; x < end; x += 4) {
        if (kAhead) prefetch<4 * kTileCols>(&tile.ahead);
        roll_step(&tile, 0, kMr, x, w_step);
      }
      if (++t == taps) break;
      x = tap[t] - tap[0];
    }
    if (i == 0) tile.ahead = others;
  }
  take_turns<kDirect, kAhead, true, false>(roll, &tile, next, w_step);
  advance(roll.direct, static_cast<int>(tiles) * kMr);
}

// The first `rolled` of a block's tiles.
inline void roll_tiles(const Roll& roll, Direct direct, bool pays, int64_t rolled, int64_t tiles) {
  const int64_t step_bytes = 4 * roll.b.stored_cols, steps = roll.b.k / 4;
  const Ahead first = ahead_of(roll.b.w, step_bytes, steps, 0, tiles);
  const Ahead others = ahead_of(roll.b.w, step_bytes, steps, 1, tiles);
  const bool plain = direct == Direct::plain;
  if constexpr (kTilesAhead < kBlockRows) {
    if (!pays) {
      return plain ? roll_tiles<Direct::plain, false>(roll, rolled, first, others)
                   : roll_tiles<Direct::residual, false>(roll, rolled, first, others);
    }
  }
  return plain ? roll_tiles<Direct::plain, true>(roll, rolled, first, others)
               : roll_tiles<Direct::residual, true>(roll, rolled, first, others);
}
