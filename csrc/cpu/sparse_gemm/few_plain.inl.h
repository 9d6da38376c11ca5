// few_vectors.inl.h in plain C++: one entry after another. Include after lanes.inl.h.

template <Dtype kType>
inline float read_value(const char* p) {
  if (kType == Dtype::bf16) return bf16_to_float(read<uint16_t>(p));
  return read<float>(p);
}

template <Dtype kType>
inline void few_tokens(const SparseFewRows& t, int64_t strip, float* sums, int64_t ld) {
  const char* v = t.values_of(strip);
  const char* mask = t.masks + strip * t.windows * 8;
  const float* x = static_cast<const float*>(t.x);
  for (int m = 0; m < t.tokens; ++m) {
    for (int r = 0; r < kFewStrip; ++r) sums[m * ld + r] = 0;
  }
  for (int64_t i = 0; i < t.windows; ++i, mask += 8, x += kFewWindow) {
    for (auto bits = read<uint64_t>(mask); bits != 0; bits &= bits - 1) {
      const int bit = __builtin_ctzll(bits), r = bit / kFewWindow;
      const float w = read_value<kType>(v);
      v += dtype_bytes(kType);
      for (int m = 0; m < t.tokens; ++m) {
        float* sum = sums + m * ld + r;
        *sum = fma(w, x[m * t.ldx + bit % kFewWindow], *sum);
      }
    }
    v = v < t.values_end ? v : t.values_end;
  }
}
