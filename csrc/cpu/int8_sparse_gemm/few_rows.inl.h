// Few rows by strips of 4 outputs (sparse_gemm/few_rows.h). Include after few_codes.inl.h or
// few_plain.inl.h, whose few_tokens multiplies all tokens by one strip.

// kSectionRows outputs at a time, through the epilogue.
inline void few_rows_impl(const SparseFewRows& t) {
  alignas(64) int32_t start[kSectionRows], sums[kMostFewTokens * kSectionRows] = {};
  constexpr int64_t kStrips = kSectionRows / kFewStrip;
  for (int64_t first = t.first; first < t.last; first += kStrips) {
    const int64_t last = min64(t.last, first + kStrips), n0 = first * kFewStrip;
    for (int64_t strip = first; strip < last; ++strip) {
      few_tokens(t, strip, sums + (strip - first) * kFewStrip, kSectionRows);
    }
    const int cols = static_cast<int>(min64(t.n, last * kFewStrip) - n0);
    Epilogue e = *t.epilogue;
    if (start_sums(&e, n0, cols, start)) {
      for (int m = 0; m < t.tokens; ++m) {
        for (int col = 0; col < cols; col += kLanes) {
          int32_t* sum = sums + m * kSectionRows + col;
          store(sum, add(load(sum), load(start + col)));
        }
      }
    }
    finish_for(e)(e, sums, kSectionRows, 0, t.tokens, n0, cols);
  }
}
