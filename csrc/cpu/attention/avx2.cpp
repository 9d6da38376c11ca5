// 6 x 16 tile of float FMAs. ymm: 12 sums + 2 of k or v + 1 broadcast = 15 of 16.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/attention/pack.h"
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"

PYOPS_TARGET_BEGIN("avx2,fma,f16c")
namespace pyops::cpu::avx2::attention {
namespace {

#include "cpu/common/vec_avx2.inl.h"
#include "cpu/common/fused_avx2.inl.h"

constexpr int kMr = 6, kTileVecs = 2;

#include "cpu/attention/floats.inl.h"

}  // namespace

#include "cpu/attention/entries.inl.h"

}  // namespace pyops::cpu::avx2::attention
PYOPS_TARGET_END
#endif
