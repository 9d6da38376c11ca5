// The epilogue of epilogue.h over a tile of int32 sums in cache. Include after activation.inl.h.

// One float vector from residual row r, column n.
inline F32 load_float(const void* base, Dtype type, int64_t at, int lanes) {
  switch (type) {
    case Dtype::bf16: return load_bf16(static_cast<const uint16_t*>(base) + at, lanes);
    case Dtype::f16: return load_f16(static_cast<const uint16_t*>(base) + at, lanes);
    default: return load(static_cast<const float*>(base) + at, lanes);
  }
}

inline int32_t zero_of(const Epilogue& e, int64_t m) {
  const uint32_t zero = e.zero_a ? static_cast<uint32_t>(e.zero_a[m * e.zero_a_stride]) : 0;
  return static_cast<int32_t>(zero + static_cast<uint32_t>(e.zero_shift));
}

// Where one zero point holds for all rows, what it takes from the sums of `cols` columns from n0
// on, so that they can start from it, and nothing is left for the epilogue. 0 otherwise, and behind
// the columns up to a whole vector. Returns whether any can differ from 0.
inline bool start_sums(Epilogue* e, int64_t n0, int cols, int32_t* start) {
  const bool per_row = e->zero_a && e->zero_a_stride != 0;
  const int32_t zero = per_row ? 0 : zero_of(*e, 0);
  for (int j = 0; j < cols; j += kLanes) {
    const int lanes = cols - j < kLanes ? cols - j : kLanes;
    const I32 w_sum = zero ? load(e->w_sum + n0 + j, lanes) : set1_i32(0);
    store(start + j, sub(set1_i32(0), mul(set1_i32(zero), w_sum)));
  }
  if (per_row) return false;
  e->zero_a = nullptr;
  e->zero_shift = 0;
  return zero != 0;
}

// One vector of the residual.
inline F32 load_residual(const Epilogue& e, int64_t at, int lanes) {
  if (e.residual_type != Dtype::u8 && e.residual_type != Dtype::s8) {
    return load_float(e.residual, e.residual_type, at, lanes);
  }
  const uint8_t* codes = static_cast<const uint8_t*>(e.residual) + at;
  const I32 q = e.residual_type == Dtype::u8 ? load_u8(codes, lanes) : load_s8(codes, lanes);
  return mul(to_f32(sub(q, set1_i32(e.residual_zero))), set1(e.residual_scale));
}

// For columns from n on.
template <Activation kActivation>
inline ActivationArgs activation_args(const Epilogue& e, int64_t n, int lanes) {
  ActivationArgs args = {};
  if (kActivation == Activation::clamp) {
    args.low = set1(e.low);
    args.high = set1(e.high);
  }
  if (kActivation == Activation::leaky_relu) {
    args.slope = e.slope_stride ? load(e.slope + n, lanes) : set1(*e.slope);
  }
  return args;
}

template <Dtype kOut>
inline void store_out(const Epilogue& e, int64_t at, F32 v, int lanes) {
  switch (kOut) {
    case Dtype::f32: return store(static_cast<float*>(e.out) + at, v, lanes);
    case Dtype::bf16: return store_bf16(static_cast<uint16_t*>(e.out) + at, v, lanes);
    case Dtype::f16: return store_f16(static_cast<uint16_t*>(e.out) + at, v, lanes);
    default: break;
  }
  const int32_t lowest = kOut == Dtype::u8 ? 0 : -128, highest = lowest + 255;
  const F32 low = set1(static_cast<float>(lowest - e.out_zero));
  const F32 high = set1(static_cast<float>(highest - e.out_zero));
  // The order of max's operands turns a NaN into the lowest value.
  const F32 t = min(max(mul(v, set1(e.out_inverse_scale)), low), high);
  store_8(static_cast<uint8_t*>(e.out) + at, add(to_i32(t), set1_i32(e.out_zero)), lanes);
}

// The code of v before its zero point is added: too large ones as the highest code, or more; NaN
// and too small ones as INT32_MIN, or at most as the lowest. For levels that pack codes: the
// generic to_i32 takes small values alone.
template <Dtype kOut>
inline I32 unbounded_code(const Epilogue& e, F32 v) {
  const F32 high = set1(static_cast<float>((kOut == Dtype::u8 ? 255 : 127) - e.out_zero));
  return to_i32(min(high, mul(v, set1(e.out_inverse_scale))));  // min gives its second NaN on
}

// Whether vectors of 8-bit codes are written together.
template <Dtype kOut, int kVecs>
constexpr bool packs_codes() {
  return kVecs == kPackedVecs && (kOut == Dtype::u8 || kOut == Dtype::s8);
}

// kVecs vectors of columns over all rows; the last one has `lanes` lanes. Their per-column operands
// stay in registers, and each row of the output is written in one run.
template <Activation kActivation, Dtype kOut, int kVecs, bool kGated = false>
inline void finish_columns(const Epilogue& e, const int32_t* acc, int64_t ld_acc, int64_t m0,
                           int rows, int64_t n0, int lanes) {
  I32 w_sum[kVecs];
  F32 scale_w[kVecs], bias[kVecs];
  ActivationArgs args[kVecs];
  PYOPS_UNROLL
  for (int j = 0; j < kVecs; ++j) {
    const int64_t n = n0 + j * kLanes;
    w_sum[j] = e.w_sum ? load(e.w_sum + n, lanes) : set1_i32(0);
    scale_w[j] = e.scale_w ? load(e.scale_w + n, lanes) : set1(1.0f);
    // -0 is the neutral element of addition: -0 + -0 stays -0.
    bias[j] = e.bias ? load(e.bias + n, lanes) : set1(-0.0f);
    args[j] = activation_args<kActivation>(e, n, lanes);
  }
  for (int r = 0; r < rows; ++r) {
    const int64_t m = m0 + r;
    const int32_t zero = zero_of(e, m);
    const F32 scale_a = set1(e.scale_a ? e.scale_a[m * e.scale_a_stride] : 1.0f);
    I32 codes[kVecs];
    PYOPS_UNROLL
    for (int j = 0; j < kVecs; ++j) {
      const int64_t at = m * e.ld + n0 + j * kLanes;
      I32 sum = load(acc + r * ld_acc + j * kLanes);
      if (zero != 0) sum = sub(sum, mul(set1_i32(zero), w_sum[j]));
      if (kOut == Dtype::s32) {
        store(static_cast<int32_t*>(e.out) + at, sum, lanes);
        continue;
      }
      F32 v = add(mul(mul(to_f32(sum), scale_a), scale_w[j]), bias[j]);
      if (e.residual) v = add(v, load_residual(e, at, lanes));
      v = activate<kActivation>(v, args[j]);
      if (kGated) v = mul(v, load_float(e.gate, e.gate_type, at, lanes));
      if constexpr (packs_codes<kOut, kVecs>()) {
        codes[j] = unbounded_code<kOut>(e, v);
      } else {
        store_out<kOut>(e, at, v, lanes);
      }
    }
    if constexpr (packs_codes<kOut, kVecs>()) {
      store_codes<kOut == Dtype::u8>(static_cast<uint8_t*>(e.out) + m * e.ld + n0, codes,
                                     e.out_zero);
    }
  }
}

template <Activation kActivation, Dtype kOut>
void finish_tile(const Epilogue& epilogue, const int32_t* acc, int64_t ld_acc, int64_t m0, int rows,
                 int64_t n0, int cols) {
  const Epilogue e = epilogue;  // a copy that no store can alias
  // A costly activation is not worth four copies of its code.
  constexpr bool kCheap = kActivation <= Activation::relu || kActivation == Activation::clamp;
  constexpr int kVecs = kCheap ? kFinishVecs : 1;
  int j = 0;
  if (e.gate) {  // on its own: a branch in the loop below costs every other epilogue
    for (; j < cols; j += kLanes) {
      const int lanes = cols - j < kLanes ? cols - j : kLanes;
      finish_columns<kActivation, kOut, 1, true>(e, acc + j, ld_acc, m0, rows, n0 + j, lanes);
    }
    return;
  }
  for (; j + kVecs * kLanes <= cols; j += kVecs * kLanes) {
    finish_columns<kActivation, kOut, kVecs>(e, acc + j, ld_acc, m0, rows, n0 + j, kLanes);
  }
  for (; j + kLanes <= cols; j += kLanes) {
    finish_columns<kActivation, kOut, 1>(e, acc + j, ld_acc, m0, rows, n0 + j, kLanes);
  }
  if (j < cols) {
    finish_columns<kActivation, kOut, 1>(e, acc + j, ld_acc, m0, rows, n0 + j, cols - j);
  }
}

// The lines of a tile: `bytes` from `first` on in each of its rows.
template <int kWrite>
inline void prefetch_rows(const char* first, int64_t pitch, int rows, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) {
    const char* row = first + i;
    for (int r = 0; r < rows; ++r, row += pitch) __builtin_prefetch(row, kWrite);
  }
}

// Asks for the lines of an output tile while its sums are computed: the stores would wait for them.
inline void prefetch_output(const Epilogue& e, int64_t m0, int rows, int64_t n0, int cols) {
  const int64_t size = dtype_bytes(e.out_type);
  const char* first = static_cast<const char*>(e.out) + (m0 * e.ld + n0) * size;
  prefetch_rows<1>(first, e.ld * size, rows, cols * size);
}

using FinishFn = void (*)(const Epilogue&, const int32_t*, int64_t, int64_t, int, int64_t, int);

template <Activation kActivation>
inline FinishFn finish_for(Dtype out) {
  switch (out) {
    case Dtype::f32: return finish_tile<kActivation, Dtype::f32>;
    case Dtype::bf16: return finish_tile<kActivation, Dtype::bf16>;
    case Dtype::f16: return finish_tile<kActivation, Dtype::f16>;
    case Dtype::s8: return finish_tile<kActivation, Dtype::s8>;
    case Dtype::u8: return finish_tile<kActivation, Dtype::u8>;
    default: return finish_tile<Activation::none, Dtype::s32>;
  }
}

#include "cpu/common/epilogue_codes.inl.h"

// acc holds whole vectors: its rows are readable up to the next multiple of kLanes after cols.
inline FinishFn finish_for(const Epilogue& e) {
  if (const FinishFn finish = finish_codes_for(e)) return finish;
  switch (e.activation) {
    case Activation::relu: return finish_for<Activation::relu>(e.out_type);
    case Activation::gelu: return finish_for<Activation::gelu>(e.out_type);
    case Activation::gelu_tanh: return finish_for<Activation::gelu_tanh>(e.out_type);
    case Activation::silu: return finish_for<Activation::silu>(e.out_type);
    case Activation::clamp: return finish_for<Activation::clamp>(e.out_type);
    case Activation::hardswish: return finish_for<Activation::hardswish>(e.out_type);
    case Activation::leaky_relu: return finish_for<Activation::leaky_relu>(e.out_type);
    default: return finish_for<Activation::none>(e.out_type);
  }
}
