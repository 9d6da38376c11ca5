// What a tile prefetches while it multiplies. The first tile that passes a piece of w reads ahead
// in it; the others share what lies behind it, evenly, so that it comes out of L3 or memory while
// there is time. (In one go before each tile it would not: that fills the line buffers.)
// Include before the block; the kernel file provides
//
//   constexpr int kAheadBytes    how far the first tile reads ahead
//   constexpr int kTilesAhead    in blocks of more tiles none of this pays: they wait for w less
//                                often than it costs

struct Ahead {
  const char* at;
  int64_t step;
};

// Tile t of `tiles`, each of which takes `steps` steps of `step_bytes` bytes from w on.
inline Ahead ahead_of(const int8_t* w, int64_t step_bytes, int64_t steps, int64_t t,
                      int64_t tiles) {
  const char* begin = reinterpret_cast<const char*>(w);
  if (t == 0) return {begin + kAheadBytes, step_bytes};
  const int64_t share = min64(64, step_bytes / (tiles - 1));
  return {begin + steps * (step_bytes + (t - 1) * share), share};
}

// One step; kBytes: of a step of the first tile in a whole panel.
template <int kBytes>
inline void prefetch(Ahead* ahead) {
  _mm_prefetch(ahead->at, _MM_HINT_T0);
  if (kBytes > 64 && ahead->step > 64) {
    PYOPS_UNROLL
    for (int i = 64; i < kBytes; i += 64) _mm_prefetch(ahead->at + i, _MM_HINT_T0);
  }
  ahead->at += ahead->step;
}
