// 64 tokens. zmm: of a pair 8 sums, 1 of weights, up to 8 of x; of a quad 16, 1, 8.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,prfchw,bmi")
namespace pyops::cpu::avx512vnni {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/sparse_gemm/items.inl.h"
#include "cpu/int8_sparse_gemm/zmm.inl.h"
#include "cpu/int8_sparse_gemm/few_plain.inl.h"
#include "cpu/int8_sparse_gemm/few_rows.inl.h"

}  // namespace

#include "cpu/int8_sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::avx512vnni
PYOPS_TARGET_END
#endif
