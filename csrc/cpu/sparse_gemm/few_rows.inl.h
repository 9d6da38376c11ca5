// Few rows by strips of 4 outputs (few_rows.h). Include after few_vectors.inl.h or
// few_plain.inl.h, whose few_tokens multiplies all tokens by one strip.

// kSectionRows outputs at a time, through the epilogue.
template <Dtype kType>
void few_strips(const SparseFewRows& t) {
  alignas(64) float sums[kMostFewTokens * kSectionRows] = {};
  constexpr int64_t kStrips = kSectionRows / kFewStrip;
  const FinishFloatFn finish = finish_float_for(*t.epilogue);
  for (int64_t first = t.first; first < t.last; first += kStrips) {
    const int64_t last = min64(t.last, first + kStrips), n0 = first * kFewStrip;
    for (int64_t strip = first; strip < last; ++strip) {
      few_tokens<kType>(t, strip, sums + (strip - first) * kFewStrip, kSectionRows);
    }
    const int64_t cols = min64(t.n, last * kFewStrip) - n0;
    finish(*t.epilogue, sums, kSectionRows, 0, t.tokens, n0, static_cast<int>(cols));
  }
}

inline void few_rows_impl(const SparseFewRows& t) {
  t.type == Dtype::bf16 ? few_strips<Dtype::bf16>(t) : few_strips<Dtype::f32>(t);
}
