// Strips of a few columns, three pixels at a time: sizes that nothing divides.
#include "cpu/target.h"
#include "cpu/common/half.h"
#include "cpu/int8_conv_relu/int8_conv_relu.h"

namespace pyops::cpu::odd {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"

constexpr int kWideVecs = 0, kPixels = 3, kParts = 1;
constexpr bool kSlides = false;
constexpr int64_t kStripBytes = 44;

#include "cpu/int8_conv_relu/plain_taps.inl.h"
#include "cpu/int8_conv_relu/columns.inl.h"
#include "cpu/int8_conv_relu/depthwise.inl.h"

}  // namespace

int64_t int8_depthwise_scratch(const ConvShape& shape) { return scratch_of(shape); }
void int8_depthwise(const DepthwiseTask& task) { depthwise_impl(task); }

}  // namespace pyops::cpu::odd
