// The steps on floats that are no layers: pools, as torch's max_pool2d, avg_pool2d and adaptive
// pools have them, with averages summed in float32, row by row.
#include <memory>
#include <utility>

#include "checks/conv_relu.h"
#include "cpu/conv_relu/call.h"
#include "cpu/int8_pool/call.h"
#include "cpu/net/steps.h"

namespace pyops::cpu {
namespace {

// Below so many taps a second thread costs more than it saves.
constexpr int64_t kSerialTaps = 1 << 15;

struct FloatPool {
  int64_t n, h, w, c;
  Dtype type;
  PoolKind kind;
  Axis ys, xs;
  int64_t divisor = 0;  // 0, or what every window is divided by

  int64_t oh() const { return static_cast<int64_t>(ys.taps.size()); }
  int64_t ow() const { return static_cast<int64_t>(xs.taps.size()); }
  Value out() const { return value_like({n, c, oh(), ow()}, type); }

  void run(const void* x, void* out, int64_t images) const {
    const int64_t pixels = images * oh() * ow();
    if (pixels * c == 0) return;
    const ConvKernel& kernel = conv_kernel_for(type);
    const int64_t pixel = c * dtype_bytes(type), line = w * pixel;
    int64_t taps = 1;
    for (const PoolTaps& t : xs.taps) taps = max64(taps, t.count * ys.taps[0].count);
    parallel_range(pixels, kSerialTaps / (c * taps) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / ow() / oh(), oy = i / ow() % oh(), ox = i % ow();
        const PoolTaps down = ys.taps[oy], across = xs.taps[ox];
        const char* first = static_cast<const char*>(x) + (image * h + down.begin) * line;
        const int64_t divided = divisor ? divisor : ys.divisors[oy] * xs.divisors[ox];
        kernel.pool({type, kind == PoolKind::max, first + across.begin * pixel, down.count,
                     ys.step * line, across.count, xs.step * pixel, c, static_cast<float>(divided),
                     static_cast<char*>(out) + i * pixel});
      }
    });
  }
};

class FloatPoolStep final : public NetStep {
 public:
  FloatPoolStep(FloatPool pool, int x) : pool_(std::move(pool)), x_(x) {}
  bool by_images() const override { return true; }
  void run(const Places& r, int64_t images) const override {
    pool_.run(r[x_].data, r[y].data, images);
  }

 private:
  FloatPool pool_;
  int x_;
};

FloatPool pool_of(const char* op, const Value& x, int64_t kind) {
  checks::code(op, "kind", kind, 2);
  const Dtype type = checks::conv_dtype(op, "x", x.type);
  checks::code_image(op, x);
  return {x.size(0), x.size(2), x.size(3), x.size(1), type, static_cast<PoolKind>(kind), {}, {}};
}

Step pool_step(FloatPool pool, int x, Value* made) {
  *made = pool.out();
  return std::make_unique<FloatPoolStep>(std::move(pool), x);
}

}  // namespace

Step read_float_pool(StepReader* in, Value* made) {
  const char* op = "float pool";
  in->expect(op, 13);
  const int x = in->source(0);
  FloatPool pool = pool_of(op, in->value(x), in->integer(1));
  const Ints kernel = in->integers(2, 2), stride = in->integers(4, 2), padding = in->integers(6, 2),
             dilation = in->integers(8, 2);
  const int64_t around[4] = {padding[0], padding[0], padding[1], padding[1]};
  pool.divisor = in->integer(12);
  checks::pool_windows(op, kernel, stride, {around, 4}, dilation, pool.divisor);
  STD_TORCH_CHECK(pool.kind == PoolKind::max || (dilation[0] == 1 && dilation[1] == 1), op,
                  ": averages take no dilation");
  const bool ceil = in->integer(10) != 0, count_padding = in->integer(11) != 0;
  const AxisWindow down = {pool.h, kernel[0], stride[0], padding[0], padding[0], dilation[0], ceil};
  const AxisWindow across = {pool.w,     kernel[1],   stride[1], padding[1],
                             padding[1], dilation[1], ceil};
  checks::pool_output(op, window_count(down), window_count(across));
  pool.ys = axis_of(down, count_padding);
  pool.xs = axis_of(across, count_padding);
  return pool_step(std::move(pool), x, made);
}

Step read_float_adaptive(StepReader* in, Value* made) {
  const char* op = "float adaptive pool";
  in->expect(op, 4);
  const int x = in->source(0);
  FloatPool pool = pool_of(op, in->value(x), in->integer(1));
  checks::pool_sizes(op, "output_size", in->integers(2, 2), 2, 1);
  STD_TORCH_CHECK(pool.h >= 1 && pool.w >= 1, op, ": x must have pixels, but is empty");
  pool.ys = adaptive_axis(pool.h, in->integer(2));
  pool.xs = adaptive_axis(pool.w, in->integer(3));
  return pool_step(std::move(pool), x, made);
}

}  // namespace pyops::cpu
