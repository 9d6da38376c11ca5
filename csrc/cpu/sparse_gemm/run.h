// A checked product on torch's threads. Only drivers include this.
#pragma once
#include "cpu/sparse_gemm/pack.h"

namespace pyops::cpu {

struct SparseCall {
  const SparseGemmKernel& kernel;
  const void* packed;
  ConvShape shape;
  Dtype type;  // of x
  const void* x;
  Epilogue epilogue;
  uint8_t padding = 0;  // of codes: what stands outside an image
};

void run_sparse(const SparseCall& call);

}  // namespace pyops::cpu
