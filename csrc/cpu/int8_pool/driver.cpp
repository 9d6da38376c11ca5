// The pools: check, lay out windows, split rows of pixels over threads.
#include "checks/int8_pool.h"
#include "cpu/common/buffer.h"
#include "cpu/common/nhwc.h"
#include "cpu/int8_pool/windows.h"

namespace pyops::cpu {
namespace {

// Below so many taps a second thread costs more than it saves.
constexpr int64_t kSerialTaps = 1 << 17;

struct PoolCodes {
  Dtype from;
  double scale;
  int64_t zero;
  Dtype type;
  double out_scale;
  int64_t out_zero;
};

PoolCodes pool_codes(const char* op, const Tensor& x, int64_t kind, double scale, int64_t zero,
                     int64_t out_dtype, double out_scale, int64_t out_zero) {
  checks::code(op, "kind", kind, 2);
  const Dtype from = checks::code_dtype(op, "x", x);
  checks::code_image(op, x);
  checks::code_scale(op, "scale_x", from, scale, "zero_point_x", zero);
  return {from,      scale,   zero, checks::code_output(op, out_dtype, out_scale, out_zero),
          out_scale, out_zero};
}

// divisor: 0, or what every window is divided by.
Tensor pool(const char* op, const Tensor& x_in, PoolKind kind, const Axis& ys, const Axis& xs,
            int64_t divisor, const PoolCodes& codes) {
  const int64_t n = x_in.size(0), c = x_in.size(1), h = x_in.size(2), w = x_in.size(3);
  const int64_t oh = static_cast<int64_t>(ys.taps.size()),
                ow = static_cast<int64_t>(xs.taps.size());
  int64_t most_y = 0, most_x = 0;
  for (const Taps& t : ys.taps) most_y = max64(most_y, t.count);
  for (const Taps& t : xs.taps) most_x = max64(most_x, t.count);
  checks::pool_taps(op, most_y * most_x);
  const Tensor x = arranged(x_in), out = new_arranged({n, c, oh, ow}, codes.type);
  if (out.numel() == 0) return out;
  const bool is_max = kind == PoolKind::max;
  const bool plain = is_max && codes.from == codes.type && codes.scale == codes.out_scale &&
                     codes.zero == codes.out_zero;
  const auto& kernel = best<Int8PoolKernel>(int8_pool_kernels);
  const int64_t taps_of_row = ow * c * most_y * most_x;
  parallel_range(n * oh, kSerialTaps / (taps_of_row + 1), [&](int64_t begin, int64_t end) {
    static thread_local Buffer buffer;
    float* scales = static_cast<float*>(buffer.get(ow * 4));
    Epilogue e = {};
    e.scale_a = scales;
    e.scale_a_stride = 1;
    e.out_type = codes.type;
    e.ld = c;
    e.out_inverse_scale = 1.0f / static_cast<float>(codes.out_scale);
    e.out_zero = static_cast<int32_t>(codes.out_zero);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t y = i % oh;
      for (int64_t m = 0; m < ow && !plain; ++m) {
        const int64_t by = divisor ? divisor : max64(1, ys.divisors[y] * xs.divisors[m]);
        scales[m] =
            static_cast<float>(is_max ? codes.scale : codes.scale / static_cast<double>(by));
      }
      e.out = static_cast<char*>(out.mutable_data_ptr()) + i * ow * c * dtype_bytes(codes.type);
      kernel.pool_row({static_cast<const uint8_t*>(x.const_data_ptr()) + i / oh * h * w * c, w * c,
                       c, codes.from == Dtype::s8, kind, static_cast<int32_t>(codes.zero),
                       ys.taps[y], ys.step, xs.step, xs.taps.data(), ow, plain ? nullptr : &e,
                       static_cast<uint8_t*>(e.out)});
    }
  });
  return out;
}

Tensor int8_pool(const Tensor& x, int64_t kind, const std::vector<int64_t>& kernel,
                 const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                 const std::vector<int64_t>& dilation, bool ceil_mode, bool count_include_pad,
                 int64_t divisor_override, double scale_x, int64_t zero_point_x, int64_t out_dtype,
                 double out_scale, int64_t out_zero_point) {
  const char* op = "int8_pool";
  const PoolCodes codes =
      pool_codes(op, x, kind, scale_x, zero_point_x, out_dtype, out_scale, out_zero_point);
  checks::pool_sizes(op, "kernel", kernel, 2, 1);
  checks::pool_sizes(op, "stride", stride, 2, 1);
  checks::pool_sizes(op, "padding", padding, 4, 0);
  checks::pool_sizes(op, "dilation", dilation, 2, 1);
  checks::pool_padding(op, padding, kernel, dilation);
  STD_TORCH_CHECK(divisor_override >= 0, op, ": divisor_override must be at least 0, but is ",
                  divisor_override);
  const AxisWindow y = {x.size(2),  kernel[0],   stride[0], padding[0],
                        padding[1], dilation[0], ceil_mode};
  const AxisWindow w = {x.size(3),  kernel[1],   stride[1], padding[2],
                        padding[3], dilation[1], ceil_mode};
  checks::pool_output(op, window_count(y), window_count(w));
  return pool(op, x, static_cast<PoolKind>(kind), axis_of(y, count_include_pad),
              axis_of(w, count_include_pad), divisor_override, codes);
}

Tensor int8_adaptive_pool(const Tensor& x, int64_t kind, const std::vector<int64_t>& output_size,
                          double scale_x, int64_t zero_point_x, int64_t out_dtype, double out_scale,
                          int64_t out_zero_point) {
  const char* op = "int8_adaptive_pool";
  const PoolCodes codes =
      pool_codes(op, x, kind, scale_x, zero_point_x, out_dtype, out_scale, out_zero_point);
  checks::pool_sizes(op, "output_size", output_size, 2, 1);
  STD_TORCH_CHECK(x.size(2) >= 1 && x.size(3) >= 1, op, ": x must have pixels, but is empty");
  return pool(op, x, static_cast<PoolKind>(kind), adaptive_axis(x.size(2), output_size[0]),
              adaptive_axis(x.size(3), output_size[1]), 0, codes);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("int8_pool", TORCH_BOX(&int8_pool));
  m.impl("int8_adaptive_pool", TORCH_BOX(&int8_adaptive_pool));
}

}  // namespace pyops::cpu
