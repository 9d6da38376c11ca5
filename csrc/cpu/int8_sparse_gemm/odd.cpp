// 3 tokens of codes: a size that nothing divides.
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

namespace pyops::cpu::odd {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/fused_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/sparse_gemm/items.inl.h"

constexpr int kTokens = 3;

#include "cpu/int8_sparse_gemm/plain.inl.h"
#include "cpu/int8_sparse_gemm/lanes.inl.h"
#include "cpu/int8_sparse_gemm/few_plain.inl.h"
#include "cpu/int8_sparse_gemm/few_rows.inl.h"

}  // namespace

#include "cpu/int8_sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::odd
