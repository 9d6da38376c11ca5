// Number types that a tensor's bytes can hold, and activations. The codes are those of
// pyops/ops/epilogue.py (OUT_DTYPES, CONV_ACTIVATIONS).
#pragma once
#include <cstdint>

namespace pyops::cpu {

enum class Dtype : int { f32 = 0, bf16 = 1, f16 = 2, s8 = 3, u8 = 4, s32 = 5 };
enum class Activation : int {
  none = 0,
  relu = 1,
  gelu = 2,
  gelu_tanh = 3,
  silu = 4,
  // With parameters (ActivationArgs), for convolutions.
  clamp = 5,
  hardswish = 6,
  leaky_relu = 7
};
constexpr int64_t kLinearActivations = 5, kConvActivations = 8;

constexpr int64_t dtype_bytes(Dtype t) {
  return t == Dtype::f32 || t == Dtype::s32 ? 4 : t == Dtype::bf16 || t == Dtype::f16 ? 2 : 1;
}
constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
constexpr int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

}  // namespace pyops::cpu
