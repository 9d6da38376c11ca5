// A strip of 4 outputs by few rows, values of k in lanes (few_rows.h), in float32. Include after
// lanes.inl.h. The kernel file provides
//
//   kFewTokens    of which the sums of a strip stay in registers, beside 4 vectors of weights
//   Mask          which lanes have an entry; read_mask(p): of the kLanes bits at p
//   F32 expand<kType>(const char* p, Mask mask)          the values at p, in those lanes; else 0
//   F32 add_entries(F32 acc, F32 w, F32 x, Mask mask)    acc + w * x, in those lanes
//   void sum_lanes(const F32 (&acc)[4], float* out)        the sum of each one's lanes

// What streams from memory: the next pages have to be under way before the hardware sees them
// touched.
constexpr int64_t kValuesAhead = 4096, kMasksAhead = 2048;

// The bits below bit n of a window's.
constexpr uint64_t low_bits(int n) { return (uint64_t{1} << n) - 1; }

// Tokens [token, token + kTokens) by a strip, whose values begin at v, to sums [tokens][ld].
template <Dtype kType, int kTokens>
inline void few_strip(const SparseFewRows& t, int64_t strip, const char* v, int token, float* sums,
                      int64_t ld) {
  constexpr int kPieces = kFewWindow / kLanes;
  constexpr int64_t kBytes = dtype_bytes(kType);
  const char* mask = t.masks + strip * t.windows * 8;
  const float* x = static_cast<const float*>(t.x) + token * t.ldx;
  F32 acc[kTokens][kFewStrip];
  PYOPS_UNROLL
  for (int m = 0; m < kTokens; ++m) {
    PYOPS_UNROLL
    for (int r = 0; r < kFewStrip; ++r) acc[m][r] = set1(0.0f);
  }
  for (int64_t i = 0; i < t.windows; ++i, mask += 8, x += kFewWindow) {
    __builtin_prefetch(v + kValuesAhead);
    __builtin_prefetch(mask + kMasksAhead);
    const auto bits = read<uint64_t>(mask);
    PYOPS_UNROLL
    for (int piece = 0; piece < kPieces; ++piece) {
      F32 w[kFewStrip];
      Mask masks[kFewStrip];
      PYOPS_UNROLL
      for (int r = 0; r < kFewStrip; ++r) {
        const int bit = r * kFewWindow + piece * kLanes;
        masks[r] = read_mask(mask + bit / 8);
        w[r] = expand<kType>(v + kBytes * __builtin_popcountll(bits & low_bits(bit)), masks[r]);
      }
      PYOPS_UNROLL
      for (int m = 0; m < kTokens; ++m) {
        F32 line = load(x + m * t.ldx + piece * kLanes);
        __asm__("" : "+v"(line));  // or gcc reads it again for each product
        PYOPS_UNROLL
        for (int r = 0; r < kFewStrip; ++r) {
          acc[m][r] = add_entries(acc[m][r], w[r], line, masks[r]);
          __asm__("" : "+v"(acc[m][r]));  // or gcc moves it from register to register
        }
      }
    }
    v += kBytes * __builtin_popcountll(bits);
    v = v < t.values_end ? v : t.values_end;
  }
  PYOPS_UNROLL
  for (int m = 0; m < kTokens; ++m) sum_lanes(acc[m], sums + (token + m) * ld);
}

// All tokens by one strip: its values come from memory once.
template <Dtype kType>
inline void few_tokens(const SparseFewRows& t, int64_t strip, float* sums, int64_t ld) {
  const char* v = t.values_of(strip);
  int token = 0;
  for (; token + kFewTokens <= t.tokens; token += kFewTokens) {
    few_strip<kType, kFewTokens>(t, strip, v, token, sums, ld);
  }
  if constexpr (kFewTokens > 2) {
    if (t.tokens - token == 3) return few_strip<kType, 3>(t, strip, v, token, sums, ld);
    if (t.tokens - token == 2) return few_strip<kType, 2>(t, strip, v, token, sums, ld);
  }
  if constexpr (kFewTokens > 1) {
    if (t.tokens - token == 1) few_strip<kType, 1>(t, strip, v, token, sums, ld);
  }
}
