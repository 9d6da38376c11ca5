// Few rows by a strip of 4 outputs, values of k in lanes (sparse_gemm/few_rows.h): exact, in int32.
// Include after lanes.inl.h. The kernel file provides
//
//   kFewTokens    of which the sums of a strip stay in registers, beside 4 vectors of weights
//   I32 expand(const char* p, uint64_t mask)           the values at p, in the lanes whose bits are
//                 set; 0 in the others
//   void sum_lanes(const I32 (&acc)[4], int32_t* out)  the sum of each one's lanes

// What streams from memory: the next pages have to be under way before the hardware sees them
// touched.
constexpr int64_t kStreamAhead = 4096;

// Tokens [token, token + kTokens) by a strip, whose values begin at v, to sums [tokens][ld].
template <int kCount>
inline void few_strip(const SparseFewRows& t, int64_t strip, const char* v, int token,
                      int32_t* sums, int64_t ld) {
  const char* mask = t.masks + strip * t.windows * 32;
  const uint8_t* x = static_cast<const uint8_t*>(t.x) + token * t.ldx;
  I32 acc[kCount][kFewStrip];
  PYOPS_UNROLL
  for (int m = 0; m < kCount; ++m) {
    PYOPS_UNROLL
    for (int r = 0; r < kFewStrip; ++r) acc[m][r] = set1_i32(0);
  }
  for (int64_t i = 0; i < t.windows; ++i, mask += 32, x += kFewCodesWindow) {
    __builtin_prefetch(v + kStreamAhead);
    __builtin_prefetch(mask + kStreamAhead);
    I32 w[kFewStrip];
    PYOPS_UNROLL
    for (int r = 0; r < kFewStrip; ++r) {
      const auto bits = read<uint64_t>(mask + 8 * r);
      w[r] = expand(v, bits);
      v += __builtin_popcountll(bits);
    }
    PYOPS_UNROLL
    for (int m = 0; m < kCount; ++m) {
      const I32 codes = load_bits(x + m * t.ldx);
      PYOPS_UNROLL
      for (int r = 0; r < kFewStrip; ++r) {
        acc[m][r] = dot4(acc[m][r], codes, w[r]);
        __asm__("" : "+v"(acc[m][r]));  // or gcc moves it from register to register
      }
    }
    v = v < t.values_end ? v : t.values_end;
  }
  PYOPS_UNROLL
  for (int m = 0; m < kCount; ++m) sum_lanes(acc[m], sums + (token + m) * ld);
}

// All tokens by one strip: its values come from memory once.
inline void few_tokens(const SparseFewRows& t, int64_t strip, int32_t* sums, int64_t ld) {
  const char* v = t.values_of(strip);
  int token = 0;
  for (; token + kFewTokens <= t.tokens; token += kFewTokens) {
    few_strip<kFewTokens>(t, strip, v, token, sums, ld);
  }
  switch (t.tokens - token) {
    case 3: return few_strip<3>(t, strip, v, token, sums, ld);
    case 2: return few_strip<2>(t, strip, v, token, sums, ld);
    case 1: return few_strip<1>(t, strip, v, token, sums, ld);
    default: return;
  }
}
