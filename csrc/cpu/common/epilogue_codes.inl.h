// The epilogue of epilogue.h from int32 sums to 8-bit codes where nothing but columns tells rows
// apart: no zero point is left, scale_a is one value, and a residual is uint8 codes. Static models
// consist of it. Included by epilogue.inl.h.
//
// Activations that clamp do so after the multiplication by out_inverse_scale, which is positive and
// so keeps the order of floats: max(0, v) * s is max(0, v * s), to the last bit.

// In codes before the zero point is added. NaN passes low and high, and becomes the lowest code.
struct CodeBounds {
  F32 low, high;        // of the activation
  F32 lowest, highest;  // of the type
};

inline CodeBounds code_bounds(const Epilogue& e) {
  const float lowest = static_cast<float>((e.out_type == Dtype::u8 ? 0 : -128) - e.out_zero);
  float low = -__builtin_inff(), high = __builtin_inff();
  if (e.activation == Activation::relu) low = 0;
  if (e.activation == Activation::clamp) {
    low = e.low * e.out_inverse_scale;
    high = e.high * e.out_inverse_scale;
  }
  return {set1(low), set1(high), set1(lowest), set1(lowest + 255)};
}

// kUnit: scale_a and out_inverse_scale are 1.
template <bool kUnit, bool kResidual, bool kClamp>
inline F32 unbounded(const Epilogue& e, I32 sum, F32 scale_a, F32 scale_w, F32 bias,
                     const CodeBounds& bounds, int64_t at, int lanes) {
  F32 v = to_f32(sum);
  if (!kUnit) v = mul(v, scale_a);
  v = add(mul(v, scale_w), bias);
  if (kResidual) {
    const uint8_t* codes = static_cast<const uint8_t*>(e.residual) + at;
    const I32 q = sub(load_u8(codes, lanes), set1_i32(e.residual_zero));
    v = add(v, mul(to_f32(q), set1(e.residual_scale)));
  }
  if (!kUnit) v = mul(v, set1(e.out_inverse_scale));
  return kClamp ? min(bounds.high, max(bounds.low, v)) : v;
}

template <Dtype kOut, bool kUnit, bool kResidual, bool kClamp, int kVecs>
inline void code_columns(const Epilogue& e, const CodeBounds& bounds, const int32_t* acc,
                         int64_t ld_acc, int64_t m0, int rows, int64_t n0, int lanes) {
  F32 scale_w[kVecs], bias[kVecs];
  PYOPS_UNROLL
  for (int j = 0; j < kVecs; ++j) {
    const int64_t n = n0 + j * kLanes;
    scale_w[j] = e.scale_w ? load(e.scale_w + n, lanes) : set1(1.0f);
    bias[j] = e.bias ? load(e.bias + n, lanes) : set1(-0.0f);  // see finish_columns
  }
  const F32 scale_a = set1(e.scale_a ? *e.scale_a : 1.0f);
  for (int r = 0; r < rows; ++r) {
    const int64_t at = (m0 + r) * e.ld + n0;
    I32 codes[kVecs];
    PYOPS_UNROLL
    for (int j = 0; j < kVecs; ++j) {
      const I32 sum = load(acc + r * ld_acc + j * kLanes);
      const F32 v = unbounded<kUnit, kResidual, kClamp>(e, sum, scale_a, scale_w[j], bias[j],
                                                        bounds, at + j * kLanes, lanes);
      if constexpr (packs_codes<kOut, kVecs>()) {
        codes[j] = to_i32(min(bounds.highest, v));
      } else {
        // The order of max's operands turns a NaN into the lowest code.
        const F32 t = min(max(v, bounds.lowest), bounds.highest);
        store_8(static_cast<uint8_t*>(e.out) + at + j * kLanes,
                add(to_i32(t), set1_i32(e.out_zero)), lanes);
      }
    }
    if constexpr (packs_codes<kOut, kVecs>()) {
      store_codes<kOut == Dtype::u8>(static_cast<uint8_t*>(e.out) + at, codes, e.out_zero);
    }
  }
}

template <Dtype kOut, bool kUnit, bool kResidual, bool kClamp>
void finish_codes(const Epilogue& epilogue, const int32_t* acc, int64_t ld_acc, int64_t m0,
                  int rows, int64_t n0, int cols) {
  const Epilogue e = epilogue;  // a copy that no store can alias
  const CodeBounds bounds = code_bounds(e);
  int j = 0;
  for (; j + kFinishVecs * kLanes <= cols; j += kFinishVecs * kLanes) {
    code_columns<kOut, kUnit, kResidual, kClamp, kFinishVecs>(e, bounds, acc + j, ld_acc, m0, rows,
                                                              n0 + j, kLanes);
  }
  for (; j < cols; j += kLanes) {
    const int lanes = cols - j < kLanes ? cols - j : kLanes;
    code_columns<kOut, kUnit, kResidual, kClamp, 1>(e, bounds, acc + j, ld_acc, m0, rows, n0 + j,
                                                    lanes);
  }
}

template <Dtype kOut, bool kUnit>
inline FinishFn finish_codes_for(const Epilogue& e) {
  // Codes of zero point 0 end at 0 by themselves.
  const bool clamps = e.activation == Activation::clamp ||
                      (e.activation == Activation::relu && (kOut == Dtype::s8 || e.out_zero != 0));
  if (e.residual) {
    return clamps ? finish_codes<kOut, kUnit, true, true> : finish_codes<kOut, kUnit, true, false>;
  }
  return clamps ? finish_codes<kOut, kUnit, false, true> : finish_codes<kOut, kUnit, false, false>;
}

// Null where finish_tile has to do it.
inline FinishFn finish_codes_for(const Epilogue& e) {
  const bool residual = !e.residual || e.residual_type == Dtype::u8;
  const bool codes = e.out_type == Dtype::u8 || e.out_type == Dtype::s8;
  const bool clamps = e.activation <= Activation::relu || e.activation == Activation::clamp;
  const bool rows_alike = !e.zero_a && e.zero_shift == 0 && (!e.scale_a || !e.scale_a_stride);
  if (!codes || !residual || !clamps || !rows_alike || e.gate) return nullptr;
  const bool unit = (!e.scale_a || *e.scale_a == 1.0f) && e.out_inverse_scale == 1.0f;
  if (e.out_type == Dtype::s8) {
    return unit ? finish_codes_for<Dtype::s8, true>(e) : finish_codes_for<Dtype::s8, false>(e);
  }
  return unit ? finish_codes_for<Dtype::u8, true>(e) : finish_codes_for<Dtype::u8, false>(e);
}

// The shortest form: uint8 codes straight from registers that hold the sums of a tile, clamped when
// they are packed. floats: of kernels that finish those themselves; direct_for does not choose it.
enum class Direct : int { none, plain, residual, floats };

inline Direct direct_for(const Epilogue& e) {
  const bool rows_alike = !e.zero_a && e.zero_shift == 0;
  const bool codes = e.direct == DirectCodes::unit && e.out_type == Dtype::u8;
  if (kPackedVecs == 0 || !codes || !rows_alike) return Direct::none;
  return e.residual ? Direct::residual : Direct::plain;
}

// A tile of kPackedVecs vectors of columns, or fewer: its operands, and where its row 0 is.
struct DirectTile {
  alignas(64) float scale_w[kPackedVecs * kLanes], bias[kPackedVecs * kLanes];
  const uint8_t* residual;
  uint8_t* out;
  int64_t ld;
  float residual_scale;
  int32_t residual_zero, out_zero, low, high;
  int cols;
};

inline void start_direct(const Epilogue& e, int64_t n0, int cols, DirectTile* to) {
  for (int j = 0; j < cols; j += kLanes) {
    const int lanes = cols - j < kLanes ? cols - j : kLanes;
    store(to->scale_w + j, e.scale_w ? load(e.scale_w + n0 + j, lanes) : set1(1.0f));
    store(to->bias + j, e.bias ? load(e.bias + n0 + j, lanes) : set1(-0.0f));
  }
  to->residual = e.residual ? static_cast<const uint8_t*>(e.residual) + n0 : nullptr;
  to->out = static_cast<uint8_t*>(e.out) + n0;
  to->ld = e.ld;
  to->residual_scale = e.residual_scale;
  to->residual_zero = e.residual_zero;
  to->out_zero = e.out_zero;
  to->low = e.low_code;
  to->high = e.high_code;
  to->cols = cols;
}

inline void advance(DirectTile* tile, int rows) {
  tile->out += rows * tile->ld;
  if (tile->residual) tile->residual += rows * tile->ld;
}

// The row of a tile that begins `at` elements behind row 0. The operands are read anew for each
// row: sums of other rows leave no registers. kWhole: all columns are there.
template <Direct kDirect, int kVecs, bool kWhole = false>
inline void store_direct(const DirectTile& d, int64_t at, const I32 (&sum)[kVecs]) {
  I32 codes[kPackedVecs];
  __asm__ volatile("" ::: "memory");
  PYOPS_UNROLL
  for (int v = 0; v < kVecs; ++v) {
    const int n = v * kLanes, lanes = kWhole || v + 1 < kVecs ? kLanes : d.cols - n;
    F32 y = add(mul(to_f32(sum[v]), load(d.scale_w + n)), load(d.bias + n));
    if constexpr (kDirect == Direct::residual) {
      const I32 q = sub(load_u8(d.residual + at + n, lanes), set1_i32(d.residual_zero));
      y = add(y, mul(to_f32(q), set1(d.residual_scale)));
    }
    codes[v] = to_i32(y);
  }
  PYOPS_UNROLL
  for (int v = kVecs; v < kPackedVecs; ++v) codes[v] = codes[0];
  const int cols = kWhole ? kVecs * kLanes : d.cols;
  store_codes<kVecs>(d.out + at, codes, d.out_zero, d.low, d.high, cols);
}
