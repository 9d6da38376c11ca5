// Argument checks of products of codes with a sparse weight. The words are those of
// pyops/ops/checks.py and conv_checks.py.
#pragma once
#include "checks/int8_conv_relu.h"
#include "checks/sparse_gemm.h"

namespace pyops::checks {

// The header of a sparse int8 weight, and the kernel that takes it.
inline const cpu::SparseHeader& packed_int8_sparse(const char* op, const Tensor& t) {
  const cpu::SparseHeader& h = packed_sparse(op, t);
  STD_TORCH_CHECK(h.of_codes(), op, ": the packed sparse weight must be torch.int8");
  sparse_layout(op, h, cpu::sparse_kernel_for(cpu::Dtype::s8));
  return h;
}

// As a weight [n, k].
inline void sparse_linear_shape(const char* op, const cpu::SparseHeader& h, int64_t n, int64_t k) {
  STD_TORCH_CHECK(h.taps() == 1 && h.groups == 1, op, ": the packed sparse weight is [", h.oc, ", ",
                  h.cg, ", ", h.kh, ", ", h.kw, "] of ", h.groups,
                  " groups, a convolution's; a product takes [N, K]");
  packed_shape(op, h.oc, h.cg, n, k);
}

// As what int8 convolutions check of any packed weight.
inline cpu::Int8ConvHeader int8_conv_header_of(const cpu::SparseHeader& h) {
  cpu::Int8ConvHeader shape = {};
  shape.layout = cpu::Int8ConvLayout::groups;
  shape.oc = h.oc, shape.c = h.cg;
  shape.kh = h.kh, shape.kw = h.kw;
  shape.groups = h.groups;
  return shape;
}

}  // namespace pyops::checks
