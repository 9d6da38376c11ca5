// Few rows (decoding): k and v are read once, where they stand, and multiplied as floats.

// s[r][j] = q[r] . k[j], depth in lanes.
template <class From, int Rows>
void direct_scores(const float* q, int64_t depth, int64_t padded, const typename From::T* k,
                   int64_t stride, int64_t keys, float* s, int64_t score_stride) {
  for (int64_t j = 0; j < keys; ++j, k += stride) {
    prefetch_elements(k + kTokensAhead * stride, depth);
    F32 acc[Rows];
    PYOPS_UNROLL
    for (int r = 0; r < Rows; ++r) acc[r] = set1(0.0f);
    int64_t d = 0;
    for (; d + kLanes <= depth; d += kLanes) {
      const F32 x = From::floats(k + d, kLanes);
      PYOPS_UNROLL
      for (int r = 0; r < Rows; ++r) acc[r] = fma(load(q + r * padded + d), x, acc[r]);
    }
    if (d < depth) {
      const F32 x = From::floats(k + d, static_cast<int>(depth - d));
      PYOPS_UNROLL
      for (int r = 0; r < Rows; ++r) acc[r] = fma(load(q + r * padded + d), x, acc[r]);
    }
    PYOPS_UNROLL
    for (int r = 0; r < Rows; ++r) s[r * score_stride + j] = reduce_add(acc[r]);
  }
}

// acc[r][d..] += weights[r] . v, for Vecs vectors, or for one that has `tail` elements.
template <class From, int Rows, int Vecs, bool kWhole>
void direct_tile(const float* weights, int64_t stride, const typename From::T* v, int64_t v_stride,
                 int64_t keys, int tail, float* to, int64_t depth) {
  F32 acc[Rows][Vecs];
  PYOPS_UNROLL
  for (int r = 0; r < Rows; ++r) {
    PYOPS_UNROLL
    for (int i = 0; i < Vecs; ++i) acc[r][i] = load(to + r * depth + i * kLanes);
  }
  for (int64_t j = 0; j < keys; ++j, v += v_stride) {
    prefetch_elements(v + kTokensAhead * v_stride, Vecs * kLanes);
    F32 x[Vecs];
    PYOPS_UNROLL
    for (int i = 0; i < Vecs; ++i) {
      x[i] = From::floats(v + i * kLanes, kWhole ? kLanes : tail);
    }
    PYOPS_UNROLL
    for (int r = 0; r < Rows; ++r) {
      const F32 weight = set1(weights[r * stride + j]);
      PYOPS_UNROLL
      for (int i = 0; i < Vecs; ++i) acc[r][i] = fma(weight, x[i], acc[r][i]);
    }
  }
  PYOPS_UNROLL
  for (int r = 0; r < Rows; ++r) {
    PYOPS_UNROLL
    for (int i = 0; i < Vecs; ++i) store(to + r * depth + i * kLanes, acc[r][i]);
  }
}

template <class From, int Rows>
void direct_values(const float* weights, int64_t stride, const typename From::T* v,
                   int64_t v_stride, int64_t keys, int64_t depth, int64_t padded, float* acc) {
  constexpr int kVecs = kLanes == 1 ? 1 : Rows == 1 ? 8 : 2;
  const auto whole = direct_tile<From, Rows, kVecs, true>;
  int64_t d = 0;
  for (; d + kVecs * kLanes <= depth; d += kVecs * kLanes) {
    whole(weights, stride, v + d, v_stride, keys, kLanes, acc + d, padded);
  }
  for (; d < depth; d += kLanes) {
    const int tail = static_cast<int>(min64(kLanes, depth - d));
    const auto part =
        tail == kLanes ? direct_tile<From, Rows, 1, true> : direct_tile<From, Rows, 1, false>;
    part(weights, stride, v + d, v_stride, keys, tail, acc + d, padded);
  }
}
