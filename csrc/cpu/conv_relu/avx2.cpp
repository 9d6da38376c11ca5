// 6 x 16 tile. ymm: 12 sums + 2 of w + 1 broadcast = 15 of 16.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/conv_relu/pack.h"

PYOPS_TARGET_BEGIN("avx2,f16c,fma,prfchw")
namespace pyops::cpu::avx2 {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/fused_avx2.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/conv_relu/gather.inl.h"

constexpr int kPair = 1;
constexpr int kMr = 6, kTileVecs = 2, kNr = kTileVecs * kLanes;

inline F32 dot(F32 a, F32 b, F32 c) { return fma(a, b, c); }

#include "cpu/conv_relu/tile.inl.h"
#include "cpu/conv_relu/column_floats.inl.h"
#include "cpu/conv_relu/lists.inl.h"
#include "cpu/conv_relu/depthwise.inl.h"
#include "cpu/conv_relu/pool.inl.h"
#include "cpu/conv_relu/winograd.inl.h"

}  // namespace

#include "cpu/conv_relu/entries.inl.h"

}  // namespace pyops::cpu::avx2
PYOPS_TARGET_END
#endif
