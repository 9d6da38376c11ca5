// The row conversion of weight_only.h on the vectors of one level. Include after epilogue.inl.h.

template <Dtype kType>
inline void widen_values(const WidenRow& row) {
  int64_t k = 0;
  for (; k + kLanes <= row.k; k += kLanes) {
    store(row.out + k, load_float(row.x, kType, k, kLanes), kLanes);
  }
  if (k < row.k) {
    const int lanes = static_cast<int>(row.k - k);
    store(row.out + k, load_float(row.x, kType, k, lanes), lanes);
  }
  for (k = row.k; k < round_up(row.k, kWeightDepth); ++k) row.out[k] = 0.0f;
}

// Eight partial sums: an order that vectors of any length can keep.
inline float sum_of(const float* x, int64_t count) {
  float part[8] = {};
  for (int64_t k = 0; k < count; k += 8) {
    for (int i = 0; i < 8; ++i) part[i] += x[k + i];
  }
  return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

inline bool widen_row_impl(const WidenRow& row) {
  switch (row.x_type) {
    case Dtype::bf16: widen_values<Dtype::bf16>(row); break;
    case Dtype::f16: widen_values<Dtype::f16>(row); break;
    default: widen_values<Dtype::f32>(row);
  }
  if (row.x_sums == nullptr) return true;
  bool finite = true;
  float* sum = row.x_sums;
  for (int64_t k = 0; k < row.k; k += row.group, ++sum) {
    *sum = sum_of(row.out + k, round_up(min64(row.group, row.k - k), kWeightDepth));
    finite = finite && *sum - *sum == 0.0f;
  }
  return finite;
}
