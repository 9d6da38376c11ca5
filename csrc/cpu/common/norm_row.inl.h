// The norms of norm.h on the vectors of one level. Include after epilogue.inl.h.

constexpr int kNormVecs = kNormLanes / kLanes;

inline F32 first_lanes(F32 v, int lanes) {
  if (lanes == kLanes) return v;
  alignas(64) float part[kLanes];
  store(part, v);
  return load(part, lanes);
}

// *sum += x, or (x - shift)^2
template <Dtype kType, bool kSquares>
inline void norm_add(F32* sum, const void* x, int64_t at, F32 shift, int lanes) {
  F32 v = load_float(x, kType, at, lanes);
  if (kSquares) {
    v = first_lanes(sub(v, shift), lanes);
    v = mul(v, v);
  }
  *sum = add(*sum, v);
}

template <Dtype kType, bool kSquares>
inline float norm_sum(const void* x, int64_t n, float shift_by) {
  const F32 shift = set1(shift_by);
  F32 sum[kNormVecs];
  PYOPS_UNROLL
  for (int j = 0; j < kNormVecs; ++j) sum[j] = set1(0.0f);
  int64_t k = 0;
  for (; k + kNormLanes <= n; k += kNormLanes) {
    PYOPS_UNROLL
    for (int j = 0; j < kNormVecs; ++j) {
      norm_add<kType, kSquares>(&sum[j], x, k + j * kLanes, shift, kLanes);
    }
  }
  PYOPS_UNROLL
  for (int j = 0; j < kNormVecs; ++j) {
    const int64_t at = k + j * kLanes;
    const int lanes = static_cast<int>(min64(kLanes, n - at));
    if (lanes > 0) norm_add<kType, kSquares>(&sum[j], x, at, shift, lanes);
  }
  PYOPS_UNROLL
  for (int half = kNormVecs / 2; half > 0; half /= 2) {
    PYOPS_UNROLL
    for (int j = 0; j < half; ++j) sum[j] = add(sum[j], sum[j + half]);
  }
  alignas(64) float lane[kLanes];
  store(lane, sum[0]);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

template <Dtype kType, bool kCentered>
inline void norm_vector(const NormRow& row, int64_t at, F32 mean, F32 scale, int lanes) {
  F32 v = load_float(row.x, kType, at, lanes);
  if (kCentered) v = sub(v, mean);
  v = mul(v, scale);
  if (row.weight) v = mul(v, load_float(row.weight, row.weight_type, at, lanes));
  if (row.bias) v = add(v, load_float(row.bias, row.bias_type, at, lanes));
  switch (row.y_type) {
    case Dtype::bf16: return store_bf16(static_cast<uint16_t*>(row.y) + at, v, lanes);
    case Dtype::f16: return store_f16(static_cast<uint16_t*>(row.y) + at, v, lanes);
    default: return store(static_cast<float*>(row.y) + at, v, lanes);
  }
}

template <Dtype kType, bool kCentered>
inline void norm_row(const NormRow& given) {
  const NormRow row = given;  // a copy that no store can alias
  const float count = static_cast<float>(row.n);
  const float mean = kCentered ? norm_sum<kType, false>(row.x, row.n, 0.0f) / count : 0.0f;
  const float variance = norm_sum<kType, true>(row.x, row.n, mean) / count;
  const F32 scale = set1(1.0f / __builtin_sqrtf(variance + row.eps)), shift = set1(mean);
  int64_t at = 0;
  for (; at + kLanes <= row.n; at += kLanes) {
    norm_vector<kType, kCentered>(row, at, shift, scale, kLanes);
  }
  if (at < row.n) {
    norm_vector<kType, kCentered>(row, at, shift, scale, static_cast<int>(row.n - at));
  }
}

template <Dtype kType>
inline void norm_row(const NormRow& row) {
  if (row.centered) {
    norm_row<kType, true>(row);
  } else {
    norm_row<kType, false>(row);
  }
}

inline void norm_row_impl(const NormRow& row) {
  switch (row.x_type) {
    case Dtype::bf16: return norm_row<Dtype::bf16>(row);
    case Dtype::f16: return norm_row<Dtype::f16>(row);
    default: return norm_row<Dtype::f32>(row);
  }
}
