// Few rows by a strip of 4 outputs (sparse_gemm/few_rows.h) in plain C++: one entry after another.

inline void few_tokens(const SparseFewRows& t, int64_t strip, int32_t* sums, int64_t ld) {
  const char* v = t.values_of(strip);
  const char* mask = t.masks + strip * t.windows * 32;
  for (int m = 0; m < t.tokens; ++m) {
    for (int r = 0; r < kFewStrip; ++r) sums[m * ld + r] = 0;
  }
  for (int64_t i = 0; i < t.windows * kFewStrip; ++i, mask += 8) {
    const uint8_t* x = static_cast<const uint8_t*>(t.x) + i / kFewStrip * kFewCodesWindow;
    int32_t* sum = sums + i % kFewStrip;
    for (auto bits = read<uint64_t>(mask); bits != 0; bits &= bits - 1, ++v) {
      const int32_t w = static_cast<int8_t>(*v);
      const int k = __builtin_ctzll(bits);
      for (int m = 0; m < t.tokens; ++m) {
        const int32_t product = x[m * t.ldx + k] * w;  // bits that are damaged may let sums wrap
        sum[m * ld] = static_cast<int32_t>(static_cast<uint32_t>(sum[m * ld]) +
                                           static_cast<uint32_t>(product));
      }
    }
    v = v < t.values_end ? v : t.values_end;
  }
}
