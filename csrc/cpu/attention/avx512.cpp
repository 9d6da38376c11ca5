// 6 x 64 tile of float FMAs. zmm: 24 sums + 4 of k or v + 1 broadcast = 29 of 32.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/attention/pack.h"
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq")
namespace pyops::cpu::avx512::attention {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/fused_avx512.inl.h"

constexpr int kMr = 6, kTileVecs = 4;

#include "cpu/attention/floats.inl.h"

}  // namespace

#include "cpu/attention/entries.inl.h"

}  // namespace pyops::cpu::avx512::attention
PYOPS_TARGET_END
#endif
