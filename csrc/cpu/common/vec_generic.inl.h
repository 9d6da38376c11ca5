// One-lane vectors in plain C++, for the level that every CPU runs. See vec_avx512.inl.h for what
// each function does. Include inside an anonymous namespace.

constexpr int kLanes = 1;
constexpr int kFinishVecs = 1;
using F32 = float;
using I32 = int32_t;

inline F32 set1(float v) { return v; }
inline I32 set1_i32(int32_t v) { return v; }
inline F32 as_f32(I32 v) { return bits_float(static_cast<uint32_t>(v)); }
inline I32 as_i32(F32 v) { return static_cast<int32_t>(float_bits(v)); }

inline F32 add(F32 a, F32 b) { return a + b; }
inline F32 sub(F32 a, F32 b) { return a - b; }
inline F32 mul(F32 a, F32 b) { return a * b; }
inline F32 div(F32 a, F32 b) { return a / b; }
inline F32 max(F32 a, F32 b) { return a > b ? a : b; }
inline F32 min(F32 a, F32 b) { return a < b ? a : b; }
inline F32 max_or_nan(F32 a, F32 b) { return b > a || b != b ? b : a; }
inline F32 abs(F32 a) { return bits_float(float_bits(a) & 0x7fffffffu); }

// Unsigned arithmetic wraps, as the vector instructions do.
inline I32 add(I32 a, I32 b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
inline I32 sub(I32 a, I32 b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}
inline I32 mul(I32 a, I32 b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}
inline I32 max(I32 a, I32 b) { return a > b ? a : b; }
inline I32 min(I32 a, I32 b) { return a < b ? a : b; }
inline I32 bit_and(I32 a, I32 b) { return a & b; }
template <int kBits>
inline I32 shift_left(I32 a) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) << kBits);
}
inline I32 max_u32(I32 a, I32 b) {
  return static_cast<uint32_t>(a) > static_cast<uint32_t>(b) ? a : b;
}
// The upper halves decide as whole lanes do.
inline I32 max_s16(I32 a, I32 b) {
  const I32 low = shift_left<16>(a) > shift_left<16>(b) ? a : b;
  return (max(a | 0xffff, b | 0xffff) & ~0xffff) | (low & 0xffff);
}
inline I32 max_u16(I32 a, I32 b) {
  const I32 low = max_u32(shift_left<16>(a), shift_left<16>(b));
  return (max_u32(a, b) & ~0xffff) | ((low >> 16) & 0xffff);
}

inline F32 lookup_16(const float* table, I32 i) { return table[i & 15]; }
inline F32 to_f32(I32 a) { return static_cast<float>(a); }
inline I32 to_i32(F32 a) { return round_to_even(a); }

inline int32_t reduce_max(I32 a) { return a; }
inline float reduce_max(F32 a) { return a; }

inline F32 load(const float* p, int = 1) { return *p; }
inline I32 load_bits(const void* p) {
  I32 bits;
  __builtin_memcpy(&bits, p, 4);
  return bits;
}
inline I32 load(const int32_t* p, int = 1) { return *p; }
inline F32 load_bf16(const uint16_t* p, int = 1) { return bf16_to_float(*p); }
inline F32 load_f16(const uint16_t* p, int = 1) { return f16_to_float(*p); }
inline I32 load_u8(const uint8_t* p, int = 1) { return *p; }
inline I32 load_s8(const uint8_t* p, int = 1) { return static_cast<int8_t>(*p); }
inline void store(float* p, F32 v, int = 1) { *p = v; }
inline void store(int32_t* p, I32 v, int = 1) { *p = v; }
inline void store_bf16(uint16_t* p, F32 v, int = 1) { *p = float_to_bf16(v); }
inline void store_bf16_pair(uint16_t* p, F32 low, F32 high) {
  store_bf16(p, low);
  store_bf16(p + 1, high);
}
inline void store_f16(uint16_t* p, F32 v, int = 1) { *p = float_to_f16(v); }
constexpr int kPackedVecs = 0;  // one code at a time: store_codes has no body
template <bool kUnsigned>
void store_codes(uint8_t* p, const I32* codes, int zero);
inline void store_8(void* p, I32 v, int = 1) { *static_cast<int8_t*>(p) = static_cast<int8_t>(v); }
inline void store_16(int16_t* p, I32 v, int = 1) { *p = static_cast<int16_t>(v); }
