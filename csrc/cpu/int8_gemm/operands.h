// The kernel for a packed int8 weight. Only drivers include this.
#pragma once
#include "checks/int8_gemm.h"
#include "cpu/int8_gemm/multiply.h"

namespace pyops::cpu {

inline const Int8GemmKernel& active_kernel() { return best<Int8GemmKernel>(int8_gemm_kernels); }

// Packs what `kernel`, of a cut layout, cannot take (kernels.inc).
inline const Int8GemmKernel& next_of(const Int8GemmKernel& kernel) { return *(&kernel + 1); }

// The packer chose a layout; the driver takes the best kernel that reads it and likes m rows.
inline const Int8GemmKernel& kernel_for(const char* op, const PackedHeader& h, int64_t m) {
  const Int8GemmKernel& active = active_kernel();
  const KernelRow* row = int8_gemm_kernels.taking(active, h.nr, h.kr, h.cut != 0, m);
  if (row == nullptr) checks::layout(op, h, active);  // raises
  return static_cast<const Int8GemmKernel&>(*row);
}

}  // namespace pyops::cpu
