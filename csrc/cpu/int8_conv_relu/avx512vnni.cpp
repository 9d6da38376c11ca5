// vpdpbusd: 4 taps of a channel at once.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/int8_conv_relu/int8_conv_relu.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
namespace pyops::cpu::avx512vnni {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/int8_conv_relu/wide_avx512.inl.h"

constexpr int kParts = 1;

template <bool kWeights>
inline void split(I32 taps, I32* to) {
  *to = taps;
}
inline I32 dot(I32 acc, I32 x_u8, I32 w_s8) { return _mm512_dpbusd_epi32(acc, x_u8, w_s8); }

#include "cpu/int8_conv_relu/columns.inl.h"
#include "cpu/int8_conv_relu/depthwise.inl.h"

}  // namespace

int64_t int8_depthwise_scratch(const ConvShape& shape) { return scratch_of(shape); }
void int8_depthwise(const DepthwiseTask& task) { depthwise_impl(task); }

}  // namespace pyops::cpu::avx512vnni
PYOPS_TARGET_END
#endif
