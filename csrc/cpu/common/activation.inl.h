// Activations on float vectors, the same operations in the same order on every level (and in
// pyops/ops/epilogue.py), so that results are bit-equal. No fused multiply-add: the generic level
// has none. Include after a vec_*.inl.h.

// Constants from scripts/fit_polynomials.py, ascending powers.
constexpr float kExp[] = {0.5f, 0.166665733f, 0.0416668616f, 0.00836373959f, 0.00139015343f};

template <int kTerms>
inline F32 horner(F32 x, const float (&c)[kTerms]) {
  F32 value = set1(c[kTerms - 1]);
  PYOPS_UNROLL
  for (int i = kTerms - 2; i >= 0; --i) value = add(mul(value, x), set1(c[i]));
  return value;
}

// e^y for y >= -87.3, infinite above 88.37 (127.5 ln 2), where n becomes 128. y = n ln 2 + r (Cody
// and Waite), e^y = 2^n e^r.
inline F32 exp(F32 y) {
  y = min(set1(89.0f), max(set1(-87.3f), y));
  const F32 shifted = add(mul(y, set1(1.44269502162933349609375f)), set1(12582912.0f));
  const F32 n = sub(shifted, set1(12582912.0f));
  F32 r = sub(y, mul(n, set1(0.693359375f)));
  r = sub(r, mul(n, set1(-2.12194440e-4f)));
  const F32 p = add(add(mul(horner(r, kExp), mul(r, r)), r), set1(1.0f));
  const I32 n_bits = sub(as_i32(shifted), set1_i32(0x4b400000 - 127));
  return mul(p, as_f32(shift_left<23>(n_bits)));
}

// tail(z) by a polynomial for each of 16 intervals: with z = (i + f) * 23 / 64, |f| <= 0.5, a line
// below holds one power of f for all i. 0 from z = 5.57 on.
constexpr int kPowers = 6;
// Phi(-z), Phi being the normal distribution.
alignas(64) constexpr float kNormalTail[kPowers][16] = {
    {0.5f, 0.359657288f, 0.236147493f, 0.140488997f, 0.0752879828f, 0.0361777321f, 0.0155320736f,
     0.0059410762f, 0.00202013762f, 0.000609546551f, 0.000162976474f, 3.85686544e-05f,
     8.07098422e-06f, 1.49232665e-06f, 2.43649936e-07f, 2.23712657e-08f},
    {-0.143369883f, -0.134404331f, -0.110733576f, -0.0801781565f, -0.0510203615f, -0.0285326205f,
     -0.0140233086f, -0.00605717348f, -0.00229932438f, -0.000767080928f, -0.000224901785f,
     -5.7950263e-05f, -1.31228708e-05f, -2.61163973e-06f, -4.56781805e-07f, -7.02126997e-08f},
    {-3.54023832e-08f, 0.00867899321f, 0.0143010505f, 0.0155324414f, 0.0131786279f, 0.00921260007f,
     0.00543343462f, 0.00273803901f, 0.00118783349f, 0.000445795333f, 0.000145218306f,
     4.11567053e-05f, 1.01660153e-05f, 2.19142248e-06f, 4.12678446e-07f, 6.79453365e-08f},
    {0.00308632944f, 0.00251939241f, 0.00115221436f, -0.000280161534f, -0.00117111788f,
     -0.00136882451f, -0.00110159488f, -0.00069472933f, -0.000359603931f, -0.000156218739f,
     -5.76798629e-05f, -1.82445729e-05f, -4.97017891e-06f, -1.17050934e-06f, -2.38971808e-07f,
     -4.23839879e-08f},
    {-9.72504381e-07f, -0.000266105664f, -0.0003797393f, -0.00030592471f, -0.000132730784f,
     2.1588241e-05f, 9.5521551e-05f, 9.76871743e-05f, 6.73285467e-05f, 3.59517762e-05f,
     1.56303904e-05f, 5.66789049e-06f, 1.73808269e-06f, 4.54695481e-07f, 1.02084989e-07f,
     1.9753772e-08f},
    {-5.8486221e-05f, -4.16445182e-05f, -2.66457619e-06f, 2.89552172e-05f, 3.61527382e-05f,
     2.35476455e-05f, 6.46923945e-06f, -4.18784521e-06f, -6.89955823e-06f, -5.28989904e-06f,
     -2.89475929e-06f, -1.24511064e-06f, -4.37901406e-07f, -1.28554106e-07f, -3.18954463e-08f,
     -6.74295864e-09f}};
// 1 / (1 + exp(2 u)), u = sqrt(2 / pi) (z + 0.044715 z^3).
alignas(64) constexpr float kTanhTail[kPowers][16] = {
    {0.5f, 0.359671235f, 0.236231297f, 0.140655324f, 0.0754473656f, 0.0362156816f, 0.0154248467f,
     0.00576418033f, 0.00186339754f, 0.00051253289f, 0.000117775206f, 2.21798546e-05f,
     3.3566364e-06f, 4.00212059e-07f, 3.68551376e-08f, 1.96123962e-09f},
    {-0.143369883f, -0.134365052f, -0.110641122f, -0.0801254958f, -0.0510918833f, -0.0286865029f,
     -0.0141413966f, -0.0060766302f, -0.00224929908f, -0.000706037157f, -0.000184534816f,
     -3.93830887e-05f, -6.72723445e-06f, -9.01485066e-07f, -9.29006205e-08f, -7.217829e-09f},
    {-3.70716684e-08f, 0.0087120356f, 0.0143105732f, 0.0154837715f, 0.0131154926f, 0.00920055248f,
     0.00547555648f, 0.00278589549f, 0.00120719371f, 0.000440231233f, 0.000132838686f,
     3.2532429e-05f, 6.33779518e-06f, 9.62647277e-07f, 1.11752712e-07f, 9.72126735e-09f},
    {0.00310161733f, 0.00252248324f, 0.00113475509f, -0.000296303275f, -0.00116321235f,
     -0.00134686846f, -0.00109064649f, -0.000700721052f, -0.000370206224f, -0.000161471195f,
     -5.75288395e-05f, -1.64613757e-05f, -3.71182887e-06f, -6.46950639e-07f, -8.55084963e-08f,
     -8.40931591e-09f},
    {-1.01832313e-06f, -0.000271368248f, -0.000383070234f, -0.000301854336f, -0.000126638421f,
     2.17246397e-05f, 9.09989321e-05f, 9.47025837e-05f, 6.78133147e-05f, 3.76036442e-05f,
     1.65087495e-05f, 5.70860857e-06f, 1.53356984e-06f, 3.14944231e-07f, 4.86279923e-08f,
     5.55067681e-09f},
    {-5.97917933e-05f, -4.21364748e-05f, -1.4411396e-06f, 3.0255218e-05f, 3.5561312e-05f,
     2.21368409e-05f, 6.19014372e-06f, -3.47597847e-06f, -6.37656103e-06f, -5.3184358e-06f,
     -3.1046286e-06f, -1.35169989e-06f, -4.42283834e-07f, -1.08037881e-07f, -1.94822789e-08f,
     -2.55950172e-09f}};

// Both kinds of gelu are x (1 - tail(x)) for x > 0 and x tail(-x) below: max(x, 0) - |x| tail(|x|).
inline F32 gelu_of(F32 x, const float (&tail)[kPowers][16]) {
  const F32 z = min(set1(5.57f), abs(x));
  const F32 steps = mul(z, set1(64.0f / 23.0f));
  const F32 shifted = add(steps, set1(12582912.0f));  // rounds: i is in the low bits
  const F32 f = sub(steps, sub(shifted, set1(12582912.0f)));
  F32 value = lookup_16(tail[kPowers - 1], as_i32(shifted));
  PYOPS_UNROLL
  for (int p = kPowers - 2; p >= 0; --p) {
    value = add(mul(value, f), lookup_16(tail[p], as_i32(shifted)));
  }
  return sub(max(set1(0.0f), x), mul(z, value));
}

inline F32 gelu(F32 x) { return gelu_of(x, kNormalTail); }
inline F32 gelu_tanh(F32 x) { return gelu_of(x, kTanhTail); }

inline F32 silu(F32 x) { return div(x, add(exp(sub(set1(-0.0f), x)), set1(1.0f))); }

// x for x > 0, x * slope below, 0 or -0 at 0.
inline F32 leaky_relu(F32 x, F32 slope) {
  return add(max(set1(0.0f), x), mul(min(set1(0.0f), x), slope));
}

inline F32 hardswish(F32 x) {
  const F32 six = min(set1(6.0f), max(set1(0.0f), add(x, set1(3.0f))));
  return mul(mul(x, six), set1(1.0f / 6.0f));
}

// low, high: of clamp, whose order of operands lets a NaN through; slope: of leaky_relu.
struct ActivationArgs {
  F32 low, high, slope;
};

template <Activation kActivation>
inline F32 activate(F32 v, const ActivationArgs& args) {
  switch (kActivation) {
    case Activation::relu: return max(set1(0.0f), v);
    case Activation::gelu: return gelu(v);
    case Activation::gelu_tanh: return gelu_tanh(v);
    case Activation::silu: return silu(v);
    case Activation::clamp: return min(args.high, max(args.low, v));
    case Activation::hardswish: return hardswish(v);
    case Activation::leaky_relu: return leaky_relu(v, args.slope);
    default: return v;
  }
}
