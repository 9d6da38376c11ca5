// The epilogue of epilogue.h over a tile of int32 sums in cache. Include after activation.inl.h.

// One float vector from residual row r, column n.
inline F32 load_float(const void* base, Dtype type, int64_t at, int lanes) {
  switch (type) {
    case Dtype::bf16: return load_bf16(static_cast<const uint16_t*>(base) + at, lanes);
    case Dtype::f16: return load_f16(static_cast<const uint16_t*>(base) + at, lanes);
    default: return load(static_cast<const float*>(base) + at, lanes);
  }
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

template <Activation kActivation, Dtype kOut>
void finish_tile(const Epilogue& e, const int32_t* acc, int64_t ld_acc, int64_t m0, int rows,
                 int64_t n0, int cols) {
  // -0 is the neutral element of addition: -0 + -0 stays -0.
  const F32 absent = set1(-0.0f), one = set1(1.0f);
  for (int j = 0; j < cols; j += kLanes) {
    const int lanes = cols - j < kLanes ? cols - j : kLanes;
    const int64_t n = n0 + j;
    const I32 w_sum = load(e.w_sum + n, lanes);
    const F32 scale_w = e.scale_w ? load(e.scale_w + n, lanes) : one;
    const F32 bias = e.bias ? load(e.bias + n, lanes) : absent;
    for (int r = 0; r < rows; ++r) {
      const int64_t m = m0 + r, at = m * e.ld + n;
      I32 sum = load(acc + r * ld_acc + j);
      int32_t zero = e.zero_shift;
      if (e.zero_a) zero += e.zero_a[m * e.zero_a_stride];
      if (zero != 0) sum = sub(sum, mul(set1_i32(zero), w_sum));
      if (kOut == Dtype::s32) {
        store(static_cast<int32_t*>(e.out) + at, sum, lanes);
        continue;
      }
      F32 v = to_f32(sum);
      if (e.scale_a) v = mul(v, set1(e.scale_a[m * e.scale_a_stride]));
      v = add(mul(v, scale_w), bias);
      if (e.residual) v = add(v, load_float(e.residual, e.residual_type, at, lanes));
      store_out<kOut>(e, at, activate<kActivation>(v), lanes);
    }
  }
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

// acc holds whole vectors: its rows are readable up to the next multiple of kLanes after cols.
inline FinishFn finish_for(const Epilogue& e) {
  switch (e.activation) {
    case Activation::relu: return finish_for<Activation::relu>(e.out_type);
    case Activation::gelu: return finish_for<Activation::gelu>(e.out_type);
    case Activation::gelu_tanh: return finish_for<Activation::gelu_tanh>(e.out_type);
    case Activation::silu: return finish_for<Activation::silu>(e.out_type);
    default: return finish_for<Activation::none>(e.out_type);
  }
}
