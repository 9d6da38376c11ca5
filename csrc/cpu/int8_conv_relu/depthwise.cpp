#include "cpu/int8_conv_relu/depthwise.h"

#include <cmath>
#include <cstring>

#include "cpu/common/half.h"

namespace pyops::cpu {
namespace {

// Below so many outputs a second thread costs more than it saves.
constexpr int64_t kSerialOutputs = 1 << 15;
// Blocks of channels pass over so many bytes of the image, which stay in L2 between them.
constexpr int64_t kImageBytes = 512 * 1024;

// The largest magnitude; not finite if a value is not.
float largest(const float* values, int64_t count, float without) {
  float most = values ? 0.0f : without;
  for (int64_t i = 0; values && i < count; ++i) {
    const float v = std::fabs(values[i]);
    most = v <= most ? most : v;  // a NaN comes through, and stays
    if (std::isnan(v)) return v;
  }
  return most;
}

// Multiplying by a positive number, rounding and saturating keep the order of numbers, so a clamp
// of values is one of codes, if there is no NaN: that takes a scale or bias that is not finite.
DirectKind clamps_codes(const Epilogue& e, const ConvShape& s) {
  if (e.out_type != Dtype::u8 && e.out_type != Dtype::s8) return DirectKind::none;
  if (e.residual || e.gate) return DirectKind::none;
  const bool clamp = e.activation == Activation::clamp;
  if (clamp ? !(e.low <= e.high)
            : e.activation != Activation::none && e.activation != Activation::relu) {
    return DirectKind::none;
  }
  const bool small = !e.scale_a || std::fabs(*e.scale_a) <= 0x1p64f;  // times 2^31 is finite
  const float scale = largest(e.scale_w, s.c, 1.0f), bias = largest(e.bias, s.c, 0.0f);
  if (!small || !std::isfinite(scale) || !std::isfinite(bias)) return DirectKind::none;
  const bool unit = (!e.scale_a || *e.scale_a == 1.0f) && e.out_inverse_scale == 1.0f;
  const double sum = 255.0 * 128.0 * static_cast<double>(s.kh * s.kw);
  const bool bounded = sum * scale + bias < 0x1p30;
  return unit && bounded ? DirectKind::unit : DirectKind::scaled;
}

int32_t code_of(const Epilogue& e, float v) {
  const int32_t lowest = e.out_type == Dtype::u8 ? 0 : -128, highest = lowest + 255;
  const float low = static_cast<float>(lowest - e.out_zero);
  const float high = static_cast<float>(highest - e.out_zero);
  const float t = v * e.out_inverse_scale;
  return round_to_even(t < low ? low : t > high ? high : t) + e.out_zero;
}

}  // namespace

void depthwise_pack(const int8_t* weight, int64_t c, int64_t taps, void* body) {
  const int64_t padded = round_up(c, kChannelStep);
  int32_t* sums = static_cast<int32_t*>(body);
  int8_t* w = reinterpret_cast<int8_t*>(sums + padded);
  std::memset(body, 0, static_cast<size_t>(depthwise_bytes(c, taps)));
  for (int64_t i = 0; i < c; ++i) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      w[tap * padded + i] = weight[i * taps + tap];
      sums[i] += weight[i * taps + tap];
    }
  }
}

void depthwise_unpack(const void* body, int64_t c, int64_t taps, int8_t* weight) {
  const int64_t padded = round_up(c, kChannelStep);
  const int8_t* w = reinterpret_cast<const int8_t*>(static_cast<const int32_t*>(body) + padded);
  for (int64_t i = 0; i < c; ++i) {
    for (int64_t tap = 0; tap < taps; ++tap) weight[i * taps + tap] = w[tap * padded + i];
  }
}

DepthwiseCall::DepthwiseCall(const Int8ConvReluKernel& kernel, const ConvShape& shape,
                             const void* x, bool x_signed, int32_t zero, const void* body,
                             const Epilogue& epilogue, int64_t threads)
    : kernel_(kernel), shape_(shape), epilogue_(epilogue), task_() {
  epilogue_.w_sum = nullptr;
  epilogue_.zero_a = nullptr;
  epilogue_.zero_shift = 0;
  epilogue_.scale_a_stride = 0;
  const int32_t* sums = static_cast<const int32_t*>(body);
  task_.x = static_cast<const uint8_t*>(x);
  task_.x_signed = x_signed;
  task_.zero = zero;
  task_.w_sum = sums;
  task_.w = reinterpret_cast<const int8_t*>(sums + round_up(shape.c, kChannelStep));
  task_.direct = clamps_codes(epilogue_, shape);
  if (task_.direct != DirectKind::none) {
    const bool clamp = epilogue_.activation == Activation::clamp;
    const bool none = epilogue_.activation == Activation::none;
    task_.low_code = code_of(epilogue_, clamp ? epilogue_.low : none ? -INFINITY : 0.0f);
    task_.high_code = code_of(epilogue_, clamp ? epilogue_.high : INFINITY);
  }
  // The largest part decides; rows before channels, for each block of channels is brought into
  // order once per part.
  const int64_t rows = shape.n * shape.oh, blocks = (shape.c + kChannelStep - 1) / kChannelStep;
  if (rows * shape.ow * shape.c < kSerialOutputs) threads = 1;
  row_parts_ = channel_parts_ = 1;
  int64_t least = rows * blocks;
  for (int64_t by_channel = 1; by_channel <= min64(threads, blocks); ++by_channel) {
    const int64_t by_row = max64(1, min64(threads / by_channel, rows));
    const int64_t largest =
        ((rows + by_row - 1) / by_row) * ((blocks + by_channel - 1) / by_channel);
    if (largest >= least) continue;
    least = largest;
    row_parts_ = by_row;
    channel_parts_ = by_channel;
  }
  scratch_bytes_ = kernel.depthwise_scratch(shape);
}

void DepthwiseCall::run(int64_t part, void* scratch) const {
  DepthwiseTask task = task_;
  const int64_t rows = shape_.n * shape_.oh;
  const int64_t blocks = (shape_.c + kChannelStep - 1) / kChannelStep;
  const int64_t i = part / channel_parts_, j = part % channel_parts_;
  const int64_t row_end = rows * (i + 1) / row_parts_;
  task.shape = &shape_;
  task.epilogue = &epilogue_;
  task.scratch = scratch;
  task.c = blocks * j / channel_parts_ * kChannelStep;
  task.c_end = min64(shape_.c, blocks * (j + 1) / channel_parts_ * kChannelStep);
  const int64_t row_bytes = max64(1, shape_.stride_h * shape_.w * (task.c_end - task.c));
  const int64_t chunk = max64(1, kImageBytes / row_bytes);
  for (int64_t row = rows * i / row_parts_; row < row_end; row += chunk) {
    task.row = row;
    task.row_end = min64(row_end, row + chunk);
    kernel_.depthwise(task);
  }
}

}  // namespace pyops::cpu
