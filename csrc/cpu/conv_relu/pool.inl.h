// Windows of pools on floats, channels in lanes. Include after epilogue.inl.h.

// Vecs vectors of channels from c on, the last of them with `lanes` lanes.
template <Dtype kType, bool kGreatest, int Vecs>
inline void pool_channels(const FloatWindow& t, int64_t c, int lanes) {
  F32 all[Vecs];
  PYOPS_UNROLL
  for (int v = 0; v < Vecs; ++v) all[v] = set1(kGreatest ? -__builtin_inff() : 0.0f);
  const char* row = static_cast<const char*>(t.x);
  for (int64_t ky = 0; ky < t.rows; ++ky, row += t.row_step) {
    const char* x = row;
    for (int64_t kx = 0; kx < t.columns; ++kx, x += t.column_step) {
      PYOPS_UNROLL
      for (int v = 0; v < Vecs; ++v) {
        const F32 tap = load_float(x, kType, c + v * kLanes, v + 1 < Vecs ? kLanes : lanes);
        all[v] = kGreatest ? max_or_nan(all[v], tap) : add(all[v], tap);
      }
    }
  }
  Epilogue e = {};
  e.out = t.out;
  PYOPS_UNROLL
  for (int v = 0; v < Vecs; ++v) {
    if (!kGreatest) all[v] = div(all[v], set1(t.divisor));
    store_out<kType>(e, c + v * kLanes, all[v], v + 1 < Vecs ? kLanes : lanes);
  }
}

template <Dtype kType, bool kGreatest>
inline void pool_window(const FloatWindow& t) {
  constexpr int kVecs = 4;
  int64_t c = 0;
  for (; c + kVecs * kLanes <= t.c; c += kVecs * kLanes) {
    pool_channels<kType, kGreatest, kVecs>(t, c, kLanes);
  }
  for (; c < t.c; c += kLanes) {
    pool_channels<kType, kGreatest, 1>(t, c, static_cast<int>(min64(kLanes, t.c - c)));
  }
}

inline void pool_of_vectors(const FloatWindow& t) {
  if (t.type == Dtype::bf16) {
    return t.greatest ? pool_window<Dtype::bf16, true>(t) : pool_window<Dtype::bf16, false>(t);
  }
  t.greatest ? pool_window<Dtype::f32, true>(t) : pool_window<Dtype::f32, false>(t);
}
