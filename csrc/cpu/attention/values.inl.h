// How elements of q, k and v become dwords of what is multiplied. Include behind a vec_*.inl.h.
//
//   depth(p, n)    kLanes dwords of the n elements at p, zeros behind them: for k and q
//   keys(a, b, n)  kLanes dwords of n elements of one key, or of two keys, b being the second of
//                  a pair or null: for v
//
// floats(p, n): n elements at p, converted.

struct FromF32 {
  using T = float;
  static F32 floats(const T* p, int n) { return load(p, n); }
};
struct FromBf16 {
  using T = uint16_t;
  static F32 floats(const T* p, int n) { return load_bf16(p, n); }
};
struct FromF16 {
  using T = uint16_t;
  static F32 floats(const T* p, int n) { return load_f16(p, n); }
};

template <class From>
struct Floats : From {
  using T = typename From::T;
  static F32 depth(const T* p, int64_t n) { return From::floats(p, static_cast<int>(n)); }
  static F32 keys(const T* a, const T*, int n) { return From::floats(a, n); }
};
