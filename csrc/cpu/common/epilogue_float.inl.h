// The epilogue of epilogue.h over a tile of float sums in cache, from `v * scale_w` on: there are
// no zero points and no scale_a. Include after epilogue.inl.h.

template <Activation kActivation, Dtype kOut>
inline void finish_float_vector(const Epilogue& e, const float* sums, int64_t at, int64_t n,
                                int lanes) {
  F32 v = load(sums);
  if (e.scale_w) v = mul(v, load(e.scale_w + n, lanes));
  if (e.bias) v = add(v, load(e.bias + n, lanes));
  if (e.residual) v = add(v, load_float(e.residual, e.residual_type, at, lanes));
  store_out<kOut>(e, at, activate<kActivation>(v), lanes);
}

template <Activation kActivation, Dtype kOut>
void finish_float_tile(const Epilogue& epilogue, const float* sums, int64_t ld_sums, int64_t m0,
                       int rows, int64_t n0, int cols) {
  const Epilogue e = epilogue;  // a copy that no store can alias
  for (int64_t m = m0; m < m0 + rows; ++m, sums += ld_sums) {
    for (int j = 0; j < cols; j += kLanes) {
      const int lanes = cols - j < kLanes ? cols - j : kLanes;
      finish_float_vector<kActivation, kOut>(e, sums + j, m * e.ld + n0 + j, n0 + j, lanes);
    }
  }
}

using FinishFloatFn = void (*)(const Epilogue&, const float*, int64_t, int64_t, int, int64_t, int);

template <Activation kActivation>
inline FinishFloatFn finish_float_for(Dtype out) {
  switch (out) {
    case Dtype::bf16: return finish_float_tile<kActivation, Dtype::bf16>;
    case Dtype::f16: return finish_float_tile<kActivation, Dtype::f16>;
    default: return finish_float_tile<kActivation, Dtype::f32>;
  }
}

// Rows of sums hold whole vectors; the first is row m0, from column n0 on.
inline FinishFloatFn finish_float_for(const Epilogue& e) {
  switch (e.activation) {
    case Activation::relu: return finish_float_for<Activation::relu>(e.out_type);
    case Activation::gelu: return finish_float_for<Activation::gelu>(e.out_type);
    case Activation::gelu_tanh: return finish_float_for<Activation::gelu_tanh>(e.out_type);
    case Activation::silu: return finish_float_for<Activation::silu>(e.out_type);
    default: return finish_float_for<Activation::none>(e.out_type);
  }
}
