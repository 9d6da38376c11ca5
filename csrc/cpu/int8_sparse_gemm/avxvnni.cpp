// 32 tokens, VEX-encoded. ymm: of a pair 8 sums, 1 of weights, 4 to 6 of x; of a quad, 16 tokens at
// a time, 8 sums, 1 of weights, 4 of x.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

PYOPS_TARGET_BEGIN("avx2,f16c,fma,avxvnni,prfchw")
namespace pyops::cpu::avxvnni {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/fused_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/sparse_gemm/items.inl.h"

inline I32 dot4(I32 acc, I32 codes, I32 w) { return _mm256_dpbusd_avx_epi32(acc, codes, w); }

#include "cpu/int8_sparse_gemm/ymm_vnni.inl.h"

}  // namespace

#include "cpu/int8_sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::avxvnni
PYOPS_TARGET_END
#endif
