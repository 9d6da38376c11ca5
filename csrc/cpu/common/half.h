// Bits of floats; bfloat16 and float16 bits to and from float, round to nearest even.
#pragma once
#include <cstdint>
#include <cstring>

namespace pyops::cpu {

inline uint32_t float_bits(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return bits;
}
inline float bits_float(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}

// Of |v| < 2^22: adding 1.5 * 2^23 rounds to nearest even and leaves the integer in the bits.
inline int32_t round_to_even(float v) {
  return static_cast<int32_t>(float_bits(v + 12582912.0f)) - 0x4b400000;
}

inline float bf16_to_float(uint16_t b) { return bits_float(static_cast<uint32_t>(b) << 16); }

inline uint16_t float_to_bf16(float v) {
  const uint32_t bits = float_bits(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

inline float f16_to_float(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ffu;
  if (exponent == 31) return bits_float(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) {
    const float value = static_cast<float>(mantissa) * 5.9604644775390625e-08f;  // 2^-24
    return bits_float(sign | float_bits(value));
  }
  return bits_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

inline uint16_t float_to_f16(float v) {
  const uint32_t bits = float_bits(v);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t a = bits & 0x7fffffffu;
  if (a > 0x7f800000u) return sign | 0x7e00;
  if (a >= 0x477ff000u) return sign | 0x7c00;  // 65520 and above round to infinity
  if (a < 0x38800000u) {                       // below 2^-14: a multiple of 2^-24, the ulp of 0.5
    return sign | static_cast<uint16_t>(float_bits(bits_float(a) + 0.5f) - 0x3f000000u);
  }
  return sign | static_cast<uint16_t>((a + 0xfffu + ((a >> 13) & 1) - 0x38000000u) >> 13);
}

}  // namespace pyops::cpu
