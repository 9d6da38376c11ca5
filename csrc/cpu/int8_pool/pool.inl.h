// One row of a pool, blocks of kCodes channels at a time. Include after epilogue.inl.h, with:
//
//   Codes, kCodes           so many 8-bit codes
//   load_codes(p, n)        the first n are read, others are 0;  store_codes_part(p, codes, n)
//   set1_code(v), max_codes<signed>(a, b), flip(a): a ^ 0x80
//   Sums                    a u16 for each code;  add_codes(&sums, codes);
//   add_sums(sums, acc)     to int32 acc[kCodes]

constexpr int kPoolPixels = 16;
constexpr int64_t kSumTaps = 256;  // times 255 fits u16

// Channel c0 of the window's first tap; a window's rows are p.step_y lines apart.
inline const uint8_t* first_tap(const PoolRow& p, const PoolTaps& taps, int64_t c0) {
  return p.x + p.y.begin * p.line + taps.begin * p.c + c0;
}

template <bool kSigned>
inline Codes greatest(const PoolRow& p, const PoolTaps& taps, int64_t c0, int n) {
  Codes best = set1_code(kSigned ? 0x80 : 0);
  const int64_t step = p.step_x * p.c, line = p.step_y * p.line;
  const uint8_t* row = first_tap(p, taps, c0);
  for (int64_t i = 0; i < p.y.count; ++i, row += line) {
    const uint8_t* at = row;
    for (int64_t j = 0; j < taps.count; ++j, at += step) {
      best = max_codes<kSigned>(best, load_codes(at, n));
    }
  }
  return best;
}

inline Codes greatest(const PoolRow& p, const PoolTaps& taps, int64_t c0, int n) {
  return p.is_signed ? greatest<true>(p, taps, c0, n) : greatest<false>(p, taps, c0, n);
}

// acc[c] = sum over the window of (q - zero).
template <bool kSigned>
inline void sum(const PoolRow& p, const PoolTaps& taps, int64_t c0, int n, int32_t* acc) {
  const int64_t count = p.y.count * taps.count;
  const int64_t step = p.step_x * p.c, line = p.step_y * p.line;
  const int32_t start = -static_cast<int32_t>(count * (p.zero + (kSigned ? 128 : 0)));
  for (int j = 0; j < kCodes; j += kLanes) store(acc + j, set1_i32(start));
  Sums sums = {};
  int64_t held = 0;
  const uint8_t* row = first_tap(p, taps, c0);
  for (int64_t i = 0; i < p.y.count; ++i, row += line) {
    const uint8_t* at = row;
    for (int64_t j = 0; j < taps.count; ++j, at += step) {
      const Codes q = load_codes(at, n);
      add_codes(&sums, kSigned ? flip(q) : q);
      if (++held < kSumTaps) continue;
      add_sums(sums, acc);
      sums = Sums{};
      held = 0;
    }
  }
  add_sums(sums, acc);
}

inline void window(const PoolRow& p, const PoolTaps& taps, int64_t c0, int n, int32_t* acc) {
  if (p.kind == PoolKind::average) {
    return p.is_signed ? sum<true>(p, taps, c0, n, acc) : sum<false>(p, taps, c0, n, acc);
  }
  alignas(64) uint8_t codes[kCodes];
  store_codes_part(codes, greatest(p, taps, c0, n), kCodes);
  for (int j = 0; j < kCodes; j += kLanes) {
    const I32 q = p.is_signed ? load_s8(codes + j) : load_u8(codes + j);
    store(acc + j, sub(q, set1_i32(p.zero)));
  }
}

inline void pool_row_impl(const PoolRow& given) {
  const PoolRow p = given;  // a copy that no store can alias
  const FinishFn finish = p.epilogue ? finish_for(*p.epilogue) : nullptr;
  alignas(64) int32_t acc[kPoolPixels * kCodes];
  for (int64_t next = 0; next < p.c; next += kCodes) {
    // The last block overlaps the one before it, so that only few channels make a partial one.
    const int64_t c0 = p.c < kCodes ? 0 : min64(next, p.c - kCodes);
    const int n = static_cast<int>(min64(kCodes, p.c));
    for (int64_t m0 = 0; m0 < p.ow; m0 += kPoolPixels) {
      const int pixels = static_cast<int>(min64(kPoolPixels, p.ow - m0));
      for (int m = 0; m < pixels; ++m) {
        const PoolTaps taps = p.x_taps[m0 + m];
        if (finish) {
          window(p, taps, c0, n, acc + m * kCodes);
        } else {
          store_codes_part(p.out + (m0 + m) * p.c + c0, greatest(p, taps, c0, n), n);
        }
      }
      if (finish) finish(*p.epilogue, acc, kCodes, m0, pixels, c0, n);
    }
  }
}
