// Panels by small tiles, to try packing and driver on any machine.
#include "cpu/common/half.h"
#include "cpu/int8_gemm/int8_gemm.h"
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

namespace pyops::cpu::odd {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"

constexpr int kQuadsMr = 3, kQuadsVecs = 4, kWindowsMr = 3, kWindowsVecs = 2;

#include "cpu/int8_sparse_gemm/panels_plain.inl.h"

}  // namespace

#include "cpu/int8_sparse_gemm/panel_entries.inl.h"

}  // namespace pyops::cpu::odd
