// 3 tokens: a size that nothing divides, so that packing and driver cannot count on luck.
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/sparse_gemm/few_rows.h"

namespace pyops::cpu::odd {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/fused_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/sparse_gemm/items.inl.h"

constexpr int kVecs = 3, kQuadVecs = 3;

#include "cpu/sparse_gemm/plain.inl.h"
#include "cpu/sparse_gemm/lanes.inl.h"
#include "cpu/sparse_gemm/few_plain.inl.h"
#include "cpu/sparse_gemm/few_rows.inl.h"

}  // namespace

#include "cpu/sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::odd
