#include "cpu/int8_conv_relu/depthwise.h"

#include <cstring>

namespace pyops::cpu {
namespace {

// Below so many outputs a second thread costs more than it saves.
constexpr int64_t kSerialOutputs = 1 << 16;
// Blocks of channels pass over so many bytes of the image, which stay in L2 between them.
constexpr int64_t kImageBytes = 512 * 1024;
// ... and rows of windows that fit into so many bytes.
constexpr int64_t kTableBytes = 8 * 1024;

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
    : kernel_(kernel),
      shape_(shape),
      epilogue_(epilogue),
      task_(),
      x_(static_cast<const char*>(x)) {
  epilogue_.w_sum = nullptr;
  epilogue_.zero_a = nullptr;
  epilogue_.zero_shift = 0;
  epilogue_.scale_a_stride = 0;
  const int32_t* sums = static_cast<const int32_t*>(body);
  task_.x_signed = x_signed;
  task_.zero = zero;
  task_.w_sum = sums;
  task_.w = reinterpret_cast<const int8_t*>(sums + round_up(shape.c, kChannelStep));
  if (epilogue_.residual) epilogue_.direct = DirectCodes::none;
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
  kernel_bytes_ = kernel.depthwise_scratch(shape);
  zeros_bytes_ = round_up(shape.c, kChannelStep) + kChannelStep;
  const int64_t row_bytes = max64(1, shape.stride_h * shape.w * shape.c / channel_parts_);
  const int64_t table_rows = kTableBytes / (shape.kh * static_cast<int64_t>(sizeof(TapRow)));
  most_rows_ = max64(1, min64(kImageBytes / row_bytes, table_rows));
}

void DepthwiseCall::run(int64_t part, void* scratch) const {
  DepthwiseTask task = task_;
  const int64_t rows_all = shape_.n * shape_.oh;
  const int64_t blocks = (shape_.c + kChannelStep - 1) / kChannelStep;
  const int64_t i = part / channel_parts_, j = part % channel_parts_;
  const int64_t row_end = rows_all * (i + 1) / row_parts_;
  char* zeros = static_cast<char*>(scratch) + kernel_bytes_;
  TapRow* rows = reinterpret_cast<TapRow*>(zeros + zeros_bytes_);
  std::memset(zeros, task.zero, static_cast<size_t>(zeros_bytes_));
  task.shape = &shape_;
  task.epilogue = &epilogue_;
  task.scratch = scratch;
  task.rows = rows;
  task.zeros = zeros;
  task.c = blocks * j / channel_parts_ * kChannelStep;
  task.c_end = min64(shape_.c, blocks * (j + 1) / channel_parts_ * kChannelStep);
  for (int64_t row = rows_all * i / row_parts_; row < row_end; row += most_rows_) {
    task.row = row;
    task.row_end = min64(row_end, row + most_rows_);
    fill_tap_rows(shape_, x_, shape_.c, zeros, row, task.row_end, rows);
    kernel_.depthwise(task);
  }
}

}  // namespace pyops::cpu
