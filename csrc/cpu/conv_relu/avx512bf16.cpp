// 14 x 32 tile of bf16 pairs. zmm: 28 sums + 2 of w + 1 broadcast = 31 of 32.
#define PYOPS_AVX512_BF16
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/conv_relu/pack.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,prfchw")
namespace pyops::cpu::avx512bf16 {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/conv_relu/pairs.inl.h"

constexpr int kPair = 2;
constexpr int kMr = 14, kTileVecs = 2, kNr = kTileVecs * kLanes;

inline F32 dot(F32 a, F32 b, F32 c) {
  return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

template <bool kWhole>
inline F32 column_values(const ConvGather& g, const void* row, int64_t d) {
  const auto* from = static_cast<const uint16_t*>(row) + g.offset + d;
  return _mm512_castsi512_ps(kWhole ? _mm512_loadu_si512(from)
                                    : _mm512_maskz_loadu_epi16(first_16_bits(g.depth - d), from));
}

#include "cpu/conv_relu/tile.inl.h"
#include "cpu/conv_relu/lists.inl.h"
#include "cpu/conv_relu/depthwise.inl.h"
#include "cpu/conv_relu/pool.inl.h"
#include "cpu/conv_relu/winograd.inl.h"

}  // namespace

void conv_tile(const ConvTile& tile) {
  tile.list ? list_tile_of_vectors(tile) : tile_of_vectors(tile);
}
void conv_depthwise(const ConvDepthwise& task) { depthwise_of_vectors(task); }
void conv_pool(const FloatWindow& window) { pool_of_vectors(window); }
void conv_winograd_input(const WinogradInput& input) { winograd_input(input); }
void conv_winograd_output(const WinogradOutput& output) { winograd_output(output); }
void conv_gather(const ConvGather& gather) {
  gather.columns ? gather_columns(gather) : gather_pairs(gather);
}
void conv_start() {}
void conv_stop() {}

}  // namespace pyops::cpu::avx512bf16
PYOPS_TARGET_END
#endif
