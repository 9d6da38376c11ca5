// The pools: lay out windows, split rows of pixels over threads.
#include "cpu/common/buffer.h"
#include "cpu/int8_pool/call.h"

namespace pyops::cpu {
namespace {

// Below so many taps a second thread costs more than it saves.
constexpr int64_t kSerialTaps = 1 << 17;

}  // namespace

PoolCall::PoolCall(const char* op, const Value& x, int64_t kind, const PoolNumbers& numbers)
    : kind_(static_cast<PoolKind>(kind)), numbers_(numbers) {
  checks::code(op, "kind", kind, 2);
  from_ = checks::code_dtype(op, "x", x.type);
  checks::code_image(op, x);
  checks::code_scale(op, "scale_x", from_, numbers.scale, "zero_point_x", numbers.zero);
  type_ = checks::code_output(op, numbers.out_dtype, numbers.out_scale, numbers.out_zero);
  n_ = x.size(0);
  c_ = x.size(1);
  h_ = x.size(2);
  w_ = x.size(3);
  plain_ = kind_ == PoolKind::max && from_ == type_ && numbers.scale == numbers.out_scale &&
           numbers.zero == numbers.out_zero;
}

PoolCall::PoolCall(const char* op, const Value& x, int64_t kind, const PoolArguments& a,
                   const PoolNumbers& numbers)
    : PoolCall(op, x, kind, numbers) {
  checks::pool_windows(op, a.kernel, a.stride, a.padding, a.dilation, a.divisor);
  const AxisWindow y = {h_,           a.kernel[0],   a.stride[0], a.padding[0],
                        a.padding[1], a.dilation[0], a.ceil_mode};
  const AxisWindow w = {w_,           a.kernel[1],   a.stride[1], a.padding[2],
                        a.padding[3], a.dilation[1], a.ceil_mode};
  checks::pool_output(op, window_count(y), window_count(w));
  ys_ = axis_of(y, a.count_include_pad);
  xs_ = axis_of(w, a.count_include_pad);
  divisor_ = a.divisor;
  check_windows(op);
}

PoolCall::PoolCall(const char* op, const Value& x, int64_t kind, Ints output_size,
                   const PoolNumbers& numbers)
    : PoolCall(op, x, kind, numbers) {
  checks::pool_sizes(op, "output_size", output_size, 2, 1);
  STD_TORCH_CHECK(h_ >= 1 && w_ >= 1, op, ": x must have pixels, but is empty");
  ys_ = adaptive_axis(h_, output_size[0]);
  xs_ = adaptive_axis(w_, output_size[1]);
  check_windows(op);
}

void PoolCall::check_windows(const char* op) {
  int64_t most_y = 0, most_x = 0;
  for (const PoolTaps& t : ys_.taps) most_y = max64(most_y, t.count);
  for (const PoolTaps& t : xs_.taps) most_x = max64(most_x, t.count);
  most_taps_ = most_y * most_x;
  checks::pool_taps(op, most_taps_);
}

Value PoolCall::out() const {
  const auto oh = static_cast<int64_t>(ys_.taps.size()), ow = static_cast<int64_t>(xs_.taps.size());
  return value_like({n_, c_, oh, ow}, type_);
}

void PoolCall::scales_of_row(int64_t y, float* scales) const {
  const bool is_max = kind_ == PoolKind::max;
  for (size_t m = 0; m < xs_.taps.size(); ++m) {
    const int64_t by = divisor_ ? divisor_ : max64(1, ys_.divisors[y] * xs_.divisors[m]);
    scales[m] =
        static_cast<float>(is_max ? numbers_.scale : numbers_.scale / static_cast<double>(by));
  }
}

// Rows [begin, end) of the pixels of all images.
void PoolCall::run_rows(const uint8_t* x, char* out, int64_t begin, int64_t end) const {
  static thread_local Buffer buffer;
  const auto& kernel = best<Int8PoolKernel>(int8_pool_kernels);
  const auto oh = static_cast<int64_t>(ys_.taps.size()), ow = static_cast<int64_t>(xs_.taps.size());
  float* scales = static_cast<float*>(buffer.get(ow * 4));
  Epilogue e = {};
  e.scale_a = scales;
  e.scale_a_stride = 1;
  e.out_type = type_;
  e.ld = c_;
  e.out_inverse_scale = 1.0f / static_cast<float>(numbers_.out_scale);
  e.out_zero = static_cast<int32_t>(numbers_.out_zero);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t y = i % oh;
    if (!plain_) scales_of_row(y, scales);
    e.out = out + i * ow * c_ * dtype_bytes(type_);
    kernel.pool_row({x + i / oh * h_ * w_ * c_, w_ * c_, c_, from_ == Dtype::s8, kind_,
                     static_cast<int32_t>(numbers_.zero), ys_.taps[y], ys_.step, xs_.step,
                     xs_.taps.data(), ow, plain_ ? nullptr : &e, static_cast<uint8_t*>(e.out)});
  }
}

void PoolCall::run(const void* x, void* out, int64_t images) const {
  const auto oh = static_cast<int64_t>(ys_.taps.size()), ow = static_cast<int64_t>(xs_.taps.size());
  if (images * c_ * oh * ow == 0) return;
  parallel_range(images * oh, kSerialTaps / (ow * c_ * most_taps_ + 1),
                 [&](int64_t begin, int64_t end) {
                   run_rows(static_cast<const uint8_t*>(x), static_cast<char*>(out), begin, end);
                 });
}

}  // namespace pyops::cpu
