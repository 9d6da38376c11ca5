// The steps on floats that are no layers: pools, as torch's max_pool2d, avg_pool2d and adaptive
// pools have them, with averages summed in float32, row by row.
#include <cmath>
#include <cstring>
#include <limits>

#include "checks/conv_relu.h"
#include "cpu/common/half.h"
#include "cpu/int8_pool/call.h"
#include "cpu/net/steps.h"

namespace pyops::cpu {
namespace {

// Below so many taps a second thread costs more than it saves.
constexpr int64_t kSerialTaps = 1 << 15;
// Channels at a time: their sums stay in the first-level cache.
constexpr int64_t kChannels = 256;

inline float to_float(float v) { return v; }
inline float to_float(uint16_t v) { return bf16_to_float(v); }
inline void from_float(float v, float* out) { *out = v; }
inline void from_float(float v, uint16_t* out) { *out = float_to_bf16(v); }

// The greater one; NaN if one is.
inline float greater(float a, float b) { return b > a || b != b ? b : a; }

struct FloatPool {
  int64_t n, h, w, c;
  Dtype type;
  PoolKind kind;
  Axis ys, xs;
  int64_t divisor = 0;  // 0, or what every window is divided by

  int64_t oh() const { return static_cast<int64_t>(ys.taps.size()); }
  int64_t ow() const { return static_cast<int64_t>(xs.taps.size()); }
  Value out() const { return value_like({n, c, oh(), ow()}, type); }

  // Channels [c0, c0 + count) of one pixel.
  template <PoolKind kKind, class T>
  void window(const T* image, int64_t y, int64_t x, int64_t c0, int64_t count, T* out) const {
    float all[kChannels];
    constexpr float kNone = kKind == PoolKind::max ? -std::numeric_limits<float>::infinity() : 0.0f;
    for (int64_t i = 0; i < count; ++i) all[i] = kNone;
    const PoolTaps down = ys.taps[y], across = xs.taps[x];
    for (int64_t ky = 0; ky < down.count; ++ky) {
      const T* line = image + (down.begin + ky * ys.step) * w * c + c0;
      for (int64_t kx = 0; kx < across.count; ++kx) {
        const T* from = line + (across.begin + kx * xs.step) * c;
        for (int64_t i = 0; i < count; ++i) {
          const float v = to_float(from[i]);
          all[i] = kKind == PoolKind::max ? greater(all[i], v) : all[i] + v;
        }
      }
    }
    const int64_t taps = divisor ? divisor : ys.divisors[y] * xs.divisors[x];
    const float by = kKind == PoolKind::max ? 1.0f : static_cast<float>(taps);
    for (int64_t i = 0; i < count; ++i) {
      from_float(kKind == PoolKind::max ? all[i] : all[i] / by, out + i);
    }
  }

  template <PoolKind kKind, class T>
  void run_of(const T* x, T* out, int64_t images) const {
    const int64_t pixels = images * oh() * ow();
    int64_t taps = 1;
    for (const PoolTaps& t : xs.taps) taps = max64(taps, t.count * ys.taps[0].count);
    parallel_range(pixels, kSerialTaps / (c * taps) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / ow();
        const T* image = x + row / oh() * h * w * c;
        for (int64_t c0 = 0; c0 < c; c0 += kChannels) {
          window<kKind>(image, row % oh(), i % ow(), c0, min64(kChannels, c - c0),
                        out + i * c + c0);
        }
      }
    });
  }

  template <class T>
  void run(const void* x, void* out, int64_t images) const {
    if (images * c == 0) return;
    const auto* from = static_cast<const T*>(x);
    auto* to = static_cast<T*>(out);
    if (kind == PoolKind::max) return run_of<PoolKind::max>(from, to, images);
    run_of<PoolKind::average>(from, to, images);
  }
};

class FloatPoolStep final : public NetStep {
 public:
  FloatPoolStep(FloatPool pool, int x) : pool_(std::move(pool)), x_(x) {}
  bool by_images() const override { return true; }
  void run(const Places& r, int64_t images) const override {
    if (pool_.type == Dtype::bf16) return pool_.run<uint16_t>(r[x_].data, r[y].data, images);
    pool_.run<float>(r[x_].data, r[y].data, images);
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
