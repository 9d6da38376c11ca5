// Argument checks of the weight-only ops, made before a pointer is touched. The words are those of
// pyops/ops/weight_only_checks.py.
#pragma once
#include "checks/common.h"
#include "cpu/weight_only/pack.h"

namespace pyops::checks {

inline void int4_group(const char* op, int64_t group_size) {
  STD_TORCH_CHECK(group_size == 32 || group_size == 64 || group_size == 128, op,
                  ": group_size must be 32, 64 or 128, but is ", group_size);
}

inline void int4_per_group(const char* op, const char* name, const Tensor& t, ScalarType type,
                           const char* type_name, int64_t n, int64_t groups) {
  cpu_tensor(op, name, t, type, type_name);
  STD_TORCH_CHECK(t.dim() == 2 && t.size(0) == n && t.size(1) == groups, op, ": ", name,
                  " must be [", n, ", ", groups, "]");
}

// Shapes and types of what int4_pack takes; then the values.
inline void int4_weight(const Tensor& codes, const Tensor& scale, const OptionalTensor& zero,
                        int64_t group_size) {
  const char* op = "int4_pack";
  const bool asymmetric = zero.has_value();
  cpu_tensor(op, "codes", codes, asymmetric ? ScalarType::Byte : ScalarType::Char,
             asymmetric ? "torch.uint8 with zero points" : "torch.int8 without zero points");
  STD_TORCH_CHECK(codes.dim() == 2, op, ": codes must be 2-D [N, K], but is ", codes.dim(), "-D");
  int4_group(op, group_size);
  const int64_t n = codes.size(0);
  const int64_t groups = cpu::group_count(codes.size(1), static_cast<int>(group_size));
  int4_per_group(op, "scale", scale, ScalarType::Float, "torch.float32", n, groups);
  if (asymmetric) int4_per_group(op, "zero", *zero, ScalarType::Byte, "torch.uint8", n, groups);
}

// Four bits are stored: other values would come back as something else.
inline void int4_values(const char* name, const void* values, int64_t count, bool is_signed) {
  const uint8_t* v = static_cast<const uint8_t*>(values);
  const int offset = is_signed ? 8 : 0;
  int beyond = 0;
  for (int64_t i = 0; i < count; ++i) beyond |= (v[i] + offset) & 0xf0;
  STD_TORCH_CHECK(beyond == 0, "int4_pack: ", name, " must be in ",
                  is_signed ? "[-8, 7]" : "[0, 15]");
}

// The header of a packed weight of shape [n, k] with codes of `bits` bits.
inline const cpu::WeightHeader& packed_weight(const char* op, const char* pack, const Tensor& t,
                                              int bits, int64_t n, int64_t k) {
  const void* bytes = packed_bytes(op, pack, t);
  const char* problem = cpu::weight_problem(bytes, t.numel());
  STD_TORCH_CHECK(problem == nullptr, op, ": packed weight: ", problem ? problem : "");
  const cpu::WeightHeader& h = cpu::weight_header(bytes);
  STD_TORCH_CHECK(h.bits == bits, op, ": the packed weight has codes of ", h.bits, " bits, not ",
                  bits, " (", pack, ")");
  packed_shape(op, h.n, h.k, n, k);
  return h;
}

inline void weight_layout(const char* op, const cpu::WeightHeader& h,
                          const cpu::WeightKernel& kernel) {
  STD_TORCH_CHECK(h.nr == kernel.nr, op, ": the weight is packed as n", h.nr, "k8, but kernel ",
                  kernel.name, " takes n", kernel.nr, "k8; pack it again");
}

}  // namespace pyops::checks
