// 6 x 16 tile in VEX encoding. ymm: 12 sums + 2 of w + 1 broadcast of a = 15 of 16.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/int8_gemm/int8_gemm.h"

PYOPS_TARGET_BEGIN("avx2,f16c,avxvnni,prfchw")
namespace pyops::cpu::avxvnni {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/norm_row.inl.h"
#include "cpu/int8_gemm/quantize_row.inl.h"

constexpr int kMr = 6, kTileVecs = 2, kTileCols = kTileVecs * kLanes;
constexpr int kAheadBytes = 2048, kTilesAhead = 4;

inline I32 load_w(const int8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline I32 dot4(I32 acc, I32 a_u8, I32 w_s8) { return _mm256_dpbusd_avx_epi32(acc, a_u8, w_s8); }

#include "cpu/int8_gemm/ahead.inl.h"
#include "cpu/int8_gemm/dot_block.inl.h"

}  // namespace

void int8_gemm_block(const Int8GemmBlock& b) { block_of_tiles(b); }
void norm_row(const NormRow& row) { norm_row_impl(row); }
void quantize_row(const QuantizeRow& row) { quantize_row_impl(row); }

}  // namespace pyops::cpu::avxvnni
PYOPS_TARGET_END
#endif
