// Panels for any CPU.
#include "cpu/common/half.h"
#include "cpu/int8_gemm/int8_gemm.h"
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

namespace pyops::cpu::generic {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"

constexpr int kQuadsMr = 4, kQuadsVecs = 8, kWindowsMr = 4, kWindowsVecs = 4;

#include "cpu/int8_sparse_gemm/panels_plain.inl.h"

}  // namespace

#include "cpu/int8_sparse_gemm/panel_entries.inl.h"

}  // namespace pyops::cpu::generic
