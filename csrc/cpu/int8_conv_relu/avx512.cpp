// vpmaddwd on widened codes: 2 taps of a channel at once.
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/int8_conv_relu/int8_conv_relu.h"

PYOPS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq")
namespace pyops::cpu::avx512 {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/int8_conv_relu/wide_avx512.inl.h"

inline I32 shift_left_s16(I32 a) { return _mm512_slli_epi16(a, 8); }
inline I32 shift_right_s16(I32 a) { return _mm512_srai_epi16(a, 8); }
inline I32 shift_right_u16(I32 a) { return _mm512_srli_epi16(a, 8); }
inline I32 madd(I32 a_s16, I32 b_s16) { return _mm512_madd_epi16(a_s16, b_s16); }

#include "cpu/int8_conv_relu/madd_taps.inl.h"
#include "cpu/int8_conv_relu/columns.inl.h"
#include "cpu/int8_conv_relu/depthwise.inl.h"

}  // namespace

int64_t int8_depthwise_scratch(const ConvShape& shape) { return scratch_of(shape); }
void int8_depthwise(const DepthwiseTask& task) { depthwise_impl(task); }

}  // namespace pyops::cpu::avx512
PYOPS_TARGET_END
#endif
