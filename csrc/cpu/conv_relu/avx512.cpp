// 14 x 32 tile. zmm: 28 sums + 2 of w + 1 broadcast = 31 of 32. 14 divides the rows of many images
// (7, 14, 28, 56, 112 pixels).
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/conv_relu/pack.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,prfchw")
namespace pyops::cpu::avx512 {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/conv_relu/gather.inl.h"

constexpr int kPair = 1;
constexpr int kMr = 14, kTileVecs = 2, kNr = kTileVecs * kLanes;

inline F32 dot(F32 a, F32 b, F32 c) { return fma(a, b, c); }

#include "cpu/conv_relu/tile.inl.h"
#include "cpu/conv_relu/column_floats.inl.h"
#include "cpu/conv_relu/lists.inl.h"
#include "cpu/conv_relu/depthwise.inl.h"
#include "cpu/conv_relu/pool.inl.h"
#include "cpu/conv_relu/winograd.inl.h"

}  // namespace

#include "cpu/conv_relu/entries.inl.h"

}  // namespace pyops::cpu::avx512
PYOPS_TARGET_END
#endif
