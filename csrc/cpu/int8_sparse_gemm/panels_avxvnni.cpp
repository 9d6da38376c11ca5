// Panels on 32-byte vectors, VEX-encoded.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/int8_gemm/int8_gemm.h"
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"

PYOPS_TARGET_BEGIN("avx2,f16c,fma,avxvnni,prfchw")
namespace pyops::cpu::avxvnni {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"

inline I32 dot4(I32 acc, I32 codes, I32 w) { return _mm256_dpbusd_avx_epi32(acc, codes, w); }

#include "cpu/int8_sparse_gemm/panels_ymm.inl.h"

}  // namespace

#include "cpu/int8_sparse_gemm/panel_entries.inl.h"

}  // namespace pyops::cpu::avxvnni
PYOPS_TARGET_END
#endif
