// The kernel for a packed int8 weight. Only drivers include this.
#pragma once
#include "checks/int8_gemm.h"
#include "cpu/int8_gemm/multiply.h"

namespace pyops::cpu {

inline const Int8GemmKernel& active_kernel() { return best<Int8GemmKernel>(int8_gemm_kernels); }

// Packs what `kernel`, of a cut layout, cannot take (kernels.inc).
inline const Int8GemmKernel& next_of(const Int8GemmKernel& kernel) { return *(&kernel + 1); }

inline bool same_layout(const PackedHeader& h, const KernelRow& row) {
  return h.nr == row.nr && h.kr == row.kr && h.cut == row.cut;
}

// The packer chose a layout; the driver takes the best kernel that reads it and likes m rows.
inline const Int8GemmKernel& kernel_for(const char* op, const PackedHeader& header, int64_t m) {
  const Int8GemmKernel& active = active_kernel();
  if (active.cut && same_layout(header, next_of(active))) return next_of(active);
  checks::layout(op, header, active);
  if (m >= active.min_m || int8_gemm_kernels.forced()) return active;
  for (int i = 0; i < int8_gemm_kernels.count(); ++i) {
    const auto& row = static_cast<const Int8GemmKernel&>(int8_gemm_kernels.row(i));
    const bool usable = !row.test_only && (isa_allowed() & bit(row.isa));
    if (usable && same_layout(header, row) && m >= row.min_m) return row;
  }
  return active;
}

}  // namespace pyops::cpu
