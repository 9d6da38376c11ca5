// The epilogue of epilogue.h over a tile of float sums in cache, from `v * scale_w` on: there are
// no zero points and no scale_a. Include after epilogue.inl.h.

// The lines of the residual that a tile will read.
inline void prefetch_residual(const Epilogue& e, int64_t m0, int rows, int64_t n0, int cols) {
  if (!e.residual) return;
  const int64_t size = dtype_bytes(e.residual_type);
  const char* first = static_cast<const char*>(e.residual) + (m0 * e.ld + n0) * size;
  prefetch_rows<0>(first, e.ld * size, rows, cols * size);
}

// What comes before the activation: a bias, then a residual of the output's type, or anything.
enum class FloatSteps { bias, residual, any };

// kVecs vectors of columns over all rows; the last one has `lanes` lanes. Their per-column operands
// stay in registers.
template <Activation kActivation, Dtype kOut, int kVecs, FloatSteps kSteps>
inline void finish_float_columns(const Epilogue& e, const float* sums, int64_t ld_sums, int64_t m0,
                                 int rows, int64_t n0, int lanes) {
  F32 scale_w[kVecs], bias[kVecs];
  ActivationArgs args[kVecs];
  PYOPS_UNROLL
  for (int j = 0; j < kVecs; ++j) {
    const int64_t n = n0 + j * kLanes;
    if (kSteps == FloatSteps::any) scale_w[j] = e.scale_w ? load(e.scale_w + n, lanes) : set1(1.0f);
    // -0 is the neutral element of addition: -0 + -0 stays -0.
    bias[j] = e.bias ? load(e.bias + n, lanes) : set1(-0.0f);
    args[j] = activation_args<kActivation>(e, n, lanes);
  }
  for (int64_t m = m0; m < m0 + rows; ++m, sums += ld_sums) {
    F32 values[kVecs];
    PYOPS_UNROLL
    for (int j = 0; j < kVecs; ++j) {
      const int64_t at = m * e.ld + n0 + j * kLanes;
      F32 v = load(sums + j * kLanes);
      if (kSteps == FloatSteps::any) v = mul(v, scale_w[j]);
      v = add(v, bias[j]);
      if (kSteps == FloatSteps::residual) v = add(v, load_float(e.residual, kOut, at, lanes));
      if (kSteps == FloatSteps::any && e.residual) v = add(v, load_residual(e, at, lanes));
      values[j] = activate<kActivation>(v, args[j]);
    }
    const int64_t at = m * e.ld + n0;
    if (kOut == Dtype::bf16 && kVecs == 2 && lanes == kLanes) {
      store_bf16_pair(static_cast<uint16_t*>(e.out) + at, values[0], values[kVecs - 1]);
      continue;
    }
    PYOPS_UNROLL
    for (int j = 0; j < kVecs; ++j) store_out<kOut>(e, at + j * kLanes, values[j], lanes);
  }
}

template <Activation kActivation, Dtype kOut, FloatSteps kSteps>
inline void finish_float_rows(const Epilogue& e, const float* sums, int64_t ld_sums, int64_t m0,
                              int rows, int64_t n0, int cols) {
  // A costly activation is not worth a second copy of its code.
  constexpr int kVecs = kSteps != FloatSteps::any && kFinishVecs > 1 ? 2 : 1;
  int j = 0;
  for (; j + kVecs * kLanes <= cols; j += kVecs * kLanes) {
    finish_float_columns<kActivation, kOut, kVecs, kSteps>(e, sums + j, ld_sums, m0, rows, n0 + j,
                                                           kLanes);
  }
  for (; j < cols; j += kLanes) {
    const int lanes = cols - j < kLanes ? cols - j : kLanes;
    finish_float_columns<kActivation, kOut, 1, kSteps>(e, sums + j, ld_sums, m0, rows, n0 + j,
                                                       lanes);
  }
}

template <Activation kActivation, Dtype kOut>
void finish_float_tile(const Epilogue& epilogue, const float* sums, int64_t ld_sums, int64_t m0,
                       int rows, int64_t n0, int cols) {
  const Epilogue e = epilogue;  // a copy that no store can alias
  constexpr bool kCheap = kActivation <= Activation::relu || kActivation == Activation::clamp;
  if constexpr (kCheap) {
    if (!e.scale_w && !e.residual) {
      return finish_float_rows<kActivation, kOut, FloatSteps::bias>(e, sums, ld_sums, m0, rows, n0,
                                                                    cols);
    }
    if (!e.scale_w && e.residual_type == kOut) {
      return finish_float_rows<kActivation, kOut, FloatSteps::residual>(e, sums, ld_sums, m0, rows,
                                                                        n0, cols);
    }
  }
  finish_float_rows<kActivation, kOut, FloatSteps::any>(e, sums, ld_sums, m0, rows, n0, cols);
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
    case Activation::clamp: return finish_float_for<Activation::clamp>(e.out_type);
    case Activation::hardswish: return finish_float_for<Activation::hardswish>(e.out_type);
    case Activation::leaky_relu: return finish_float_for<Activation::leaky_relu>(e.out_type);
    default: return finish_float_for<Activation::none>(e.out_type);
  }
}
