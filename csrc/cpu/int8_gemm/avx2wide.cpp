// 6 x 16 tile. ymm: 12 sums + 2 of w + 1 broadcast of a + 1 product = 16 of 16.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/int8_gemm/int8_gemm.h"

PYOPS_TARGET_BEGIN("avx2,f16c,prfchw")
namespace pyops::cpu::avx2wide {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/norm_row.inl.h"
#include "cpu/int8_gemm/quantize_row.inl.h"

constexpr int kMr = 6, kTileVecs = 2, kTileCols = kTileVecs * kLanes;
constexpr int kAheadBytes = 2048, kTilesAhead = 4;

inline I32 load_wide(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline I32 madd(I32 a_s16, I32 w_s16) { return _mm256_madd_epi16(a_s16, w_s16); }

#include "cpu/int8_gemm/ahead.inl.h"
#include "cpu/int8_gemm/madd_block.inl.h"

}  // namespace

void int8_gemm_block(const Int8GemmBlock& b) { block_of_madds(b); }
void norm_row(const NormRow& row) { norm_row_impl(row); }
void quantize_row(const QuantizeRow& row) { quantize_row_impl(row); }

}  // namespace pyops::cpu::avx2wide
PYOPS_TARGET_END
#endif
