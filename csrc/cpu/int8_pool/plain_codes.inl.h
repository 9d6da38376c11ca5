// What pool.inl.h needs, in plain C++. Include with kCodes.

struct Codes {
  uint8_t v[kCodes];
};
struct Sums {
  uint16_t v[kCodes];
};

inline Codes load_codes(const uint8_t* p, int n) {
  Codes codes = {};
  for (int i = 0; i < n; ++i) codes.v[i] = p[i];
  return codes;
}
inline void store_codes_part(uint8_t* p, const Codes& codes, int n) {
  for (int i = 0; i < n; ++i) p[i] = codes.v[i];
}
inline Codes set1_code(uint8_t v) {
  Codes codes;
  for (int i = 0; i < kCodes; ++i) codes.v[i] = v;
  return codes;
}
inline Codes flip(Codes codes) {
  for (int i = 0; i < kCodes; ++i) codes.v[i] ^= 0x80;
  return codes;
}
template <bool kSigned>
inline Codes max_codes(Codes a, const Codes& b) {
  constexpr uint8_t kFlip = kSigned ? 0x80 : 0;
  for (int i = 0; i < kCodes; ++i) {
    if ((b.v[i] ^ kFlip) > (a.v[i] ^ kFlip)) a.v[i] = b.v[i];
  }
  return a;
}
inline void add_codes(Sums* sums, const Codes& codes) {
  for (int i = 0; i < kCodes; ++i) sums->v[i] = static_cast<uint16_t>(sums->v[i] + codes.v[i]);
}
inline void add_sums(const Sums& sums, int32_t* acc) {
  for (int i = 0; i < kCodes; ++i) acc[i] += sums.v[i];
}
