// 32 x 32 tile of AMX: four 16 x 16 sums, two strips of pixels and two of output channels.
//
//   tmm 0 1     sums, pixels 0..15     tmm 4  pixels  0..15     tmm 6 7  channels 0..15, 16..31
//       2 3           pixels 16..31        5  pixels 16..31
//
// A strip is 16 lines of 32 bf16, read where the pixels stand; lines beyond the last pixel are
// read, multiplied and left.
#define PYOPS_AVX512_BF16
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/conv_relu/pack.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16,prfchw")
namespace pyops::cpu::amx {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"
#include "cpu/common/tiles_amx.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/conv_relu/pairs.inl.h"

constexpr int kNr = 32, kDepth = 32;
constexpr int64_t kPanelLine = kNr * 4;  // bytes of a pair of k
constexpr int64_t kPanelStep = kDepth / 2 * kPanelLine;

// sums [32 or 16][32 or 16 of kNr]
template <bool kLower, bool kRight>
__attribute__((noinline)) void conv_sums(const ConvTile& t, float* sums) {
  const char* w = static_cast<const char*>(t.w);
  const int64_t step = t.step, depth = 2 * t.depth;
  _tile_zero(0);
  if (kRight) _tile_zero(1);
  if (kLower) _tile_zero(2);
  if (kLower && kRight) _tile_zero(3);
  const void* const* rows = t.rows;
  for (int64_t s = t.segments; s > 0; --s, rows += t.pixels) {
    const char* x = static_cast<const char*>(*rows) + 2 * t.offset;
    for (int64_t d = 0; d < depth; d += 2 * kDepth, w += kPanelStep) {
      _tile_loadd(6, w, kPanelLine);
      _tile_loadd(4, x + d, step);
      _tile_dpbf16ps(0, 4, 6);
      if (kRight) {
        _tile_loadd(7, w + 64, kPanelLine);
        _tile_dpbf16ps(1, 4, 7);
      }
      if (kLower) {
        _tile_loadd(5, x + kConvStrip * step + d, step);
        _tile_dpbf16ps(2, 5, 6);
      }
      if (kLower && kRight) _tile_dpbf16ps(3, 5, 7);
    }
  }
  float* lower = sums + kConvStrip * kNr;
  _tile_stored(0, sums, kNr * 4);
  if (kRight) _tile_stored(1, sums + kLanes, kNr * 4);
  if (kLower) _tile_stored(2, lower, kNr * 4);
  if (kLower && kRight) _tile_stored(3, lower + kLanes, kNr * 4);
}

#include "cpu/conv_relu/depthwise.inl.h"
#include "cpu/conv_relu/pool.inl.h"
#include "cpu/conv_relu/winograd.inl.h"

}  // namespace

void conv_tile(const ConvTile& t) {
  alignas(64) float sums[2 * kConvStrip * kNr];
  const bool right = t.cols > kLanes;
  if (t.pixels > kConvStrip) {
    right ? conv_sums<true, true>(t, sums) : conv_sums<true, false>(t, sums);
  } else {
    right ? conv_sums<false, true>(t, sums) : conv_sums<false, false>(t, sums);
  }
  finish_float_for (*t.epilogue)(*t.epilogue, sums, kNr, t.m0, t.pixels, t.n0, t.cols);
}

void conv_depthwise(const ConvDepthwise& task) { depthwise_of_vectors(task); }
void conv_pool(const FloatWindow& window) { pool_of_vectors(window); }
void conv_winograd_input(const WinogradInput& input) { winograd_input(input); }
void conv_winograd_output(const WinogradOutput& output) { winograd_output(output); }
void conv_gather(const ConvGather& gather) { gather_pairs(gather); }
void conv_start() { configure_tiles(); }
void conv_stop() { _tile_release(); }

}  // namespace pyops::cpu::amx
PYOPS_TARGET_END
#endif
