#include "cpu/net/steps.h"

#include <cstring>

#include "checks/int8_conv_relu.h"
#include "cpu/int8_pool/call.h"

namespace pyops::cpu {
namespace {

class EachCode final : public NetStep {
 public:
  EachCode(CodesCall call, int x) : call_(std::move(call)), x_(x) {}
  bool by_images() const override { return true; }
  void run(const Places& r, int64_t images) const override {
    if (r[x_].planes) return call_.run_planes(r[x_].data, r[y].data, images);
    call_.run(r[x_].data, nullptr, r[y].data, images);
  }

 private:
  CodesCall call_;
  int x_;
};

Step read_quantize(StepReader* in, Value* made) {
  in->expect("quantize", 3);
  const int x = in->source(0, true);
  CodesCall call = CodesCall::quantize("int8_quantize", in->value(x), in->number(), in->integer(1),
                                       in->integer(2));
  *made = call.out();
  return std::make_unique<EachCode>(std::move(call), x);
}

Step read_dequantize(StepReader* in, Value* made) {
  in->expect("dequantize", 3);
  const int x = in->source(0);
  CodesCall call = CodesCall::dequantize("int8_dequantize", in->value(x), in->number(),
                                         in->integer(1), in->integer(2));
  *made = call.out();
  return std::make_unique<EachCode>(std::move(call), x);
}

class AddStep final : public NetStep {
 public:
  AddStep(CodesCall call, int a, int b) : call_(std::move(call)), a_(a), b_(b) {}
  bool by_images() const override { return true; }
  void run(const Places& r, int64_t images) const override {
    call_.run(r[a_].data, r[b_].data, r[y].data, images);
  }

 private:
  CodesCall call_;
  int a_, b_;
};

Step read_add(StepReader* in, Value* made) {
  in->expect("add", 7);
  const int a = in->source(0), b = in->source(1);
  const double* n = in->numbers(5);
  CodesCall call = CodesCall::add("int8_add", in->value(a), in->value(b),
                                  {n[0], in->integer(2), n[1], in->integer(3), in->integer(4), n[2],
                                   n[3], in->integer(5), n[4], in->integer(6)});
  *made = call.out();
  return std::make_unique<AddStep>(std::move(call), a, b);
}

class ConcatStep final : public NetStep {
 public:
  ConcatStep(ConcatCall call, std::vector<int> xs) : call_(std::move(call)), xs_(std::move(xs)) {}
  void run(const Places& r, int64_t) const override {
    for (size_t i = 0; i < xs_.size(); ++i) call_.run(i, r[xs_[i]].data, r[y].data);
  }

 private:
  ConcatCall call_;
  std::vector<int> xs_;
};

Step read_concat(StepReader* in, Value* made) {
  const int64_t parts = (in->count() - 3) / 2;
  in->expect("concat", 3 + 2 * max64(1, parts));
  std::vector<int> xs;
  std::vector<const Value*> values;
  std::vector<int64_t> zeros;
  for (int64_t i = 0; i < parts; ++i) {
    xs.push_back(in->source(3 + 2 * i));
    values.push_back(&in->value(xs.back()));
    zeros.push_back(in->integer(4 + 2 * i));
  }
  const double* n = in->numbers(1 + parts);
  ConcatCall call("int8_concat", values, n + 1, zeros.data(), in->integer(0), n[0], in->integer(2),
                  in->integer(1));
  *made = call.out();
  return std::make_unique<ConcatStep>(std::move(call), std::move(xs));
}

class PoolStep final : public NetStep {
 public:
  PoolStep(PoolCall call, int x) : call_(std::move(call)), x_(x) {}
  bool by_images() const override { return true; }
  void run(const Places& r, int64_t images) const override {
    call_.run(r[x_].data, r[y].data, images);
  }

 private:
  PoolCall call_;
  int x_;
};

Step read_pool(StepReader* in, Value* made) {
  in->expect("pool", 18);
  const int x = in->source(0);
  const double* n = in->numbers(2);
  const PoolArguments a = {in->integers(2, 2),  in->integers(4, 2),   in->integers(6, 4),
                           in->integers(10, 2), in->integer(12) != 0, in->integer(13) != 0,
                           in->integer(14)};
  PoolCall call("int8_pool", in->value(x), in->integer(1), a,
                {n[0], in->integer(15), in->integer(16), n[1], in->integer(17)});
  *made = call.out();
  return std::make_unique<PoolStep>(std::move(call), x);
}

Step read_adaptive(StepReader* in, Value* made) {
  in->expect("adaptive pool", 7);
  const int x = in->source(0);
  const double* n = in->numbers(2);
  PoolCall call("int8_adaptive_pool", in->value(x), in->integer(1), in->integers(2, 2),
                {n[0], in->integer(4), in->integer(5), n[1], in->integer(6)});
  *made = call.out();
  return std::make_unique<PoolStep>(std::move(call), x);
}

class ClampStep final : public NetStep {
 public:
  ClampStep(int64_t count, int x, uint8_t low, uint8_t high)
      : count_(count), x_(x), low_(low), high_(high) {}
  void run(const Places& r, int64_t) const override {
    const auto* from = static_cast<const uint8_t*>(r[x_].data);
    auto* to = static_cast<uint8_t*>(r[y].data);
    const uint8_t low = low_, high = high_;
    parallel_range(count_, kSerialCodes, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const uint8_t above = from[i] < low ? low : from[i];
        to[i] = above > high ? high : above;
      }
    });
  }

 private:
  int64_t count_;
  int x_;
  uint8_t low_, high_;
};

Step read_clamp(StepReader* in, Value* made) {
  in->expect("clamp", 3);
  const int x = in->source(0);
  const Value& value = in->value(x);
  STD_TORCH_CHECK(value.type == ScalarType::Byte, "clamp: x must be torch.uint8");
  for (int64_t i = 1; i <= 2; ++i) {
    STD_TORCH_CHECK(in->integer(i) >= 0 && in->integer(i) <= 255,
                    "clamp: low and high must be in [0, 255], but are ", in->integer(1), " and ",
                    in->integer(2));
  }
  *made = value;
  return std::make_unique<ClampStep>(value.numel(), x, static_cast<uint8_t>(in->integer(1)),
                                     static_cast<uint8_t>(in->integer(2)));
}

// [N, H, W, C] in memory to [N, C, H, W]; a copy where these are the same.
template <class T>
class FlattenStep final : public NetStep {
 public:
  FlattenStep(int x, int64_t images, int64_t c, int64_t pixels)
      : x_(x), images_(images), c_(c), pixels_(pixels) {}
  void run(const Places& r, int64_t) const override {
    const auto* from = static_cast<const T*>(r[x_].data);
    auto* to = static_cast<T*>(r[y].data);
    if (c_ == 1 || pixels_ == 1) {
      std::memcpy(to, from, static_cast<size_t>(images_ * c_ * pixels_) * sizeof(T));
      return;
    }
    for (int64_t n = 0; n < images_; ++n, from += c_ * pixels_) {
      for (int64_t c = 0; c < c_; ++c) {
        for (int64_t p = 0; p < pixels_; ++p) *to++ = from[p * c_ + c];
      }
    }
  }

 private:
  int x_;
  int64_t images_, c_, pixels_;
};

Step read_flatten(StepReader* in, Value* made) {
  in->expect("flatten", 1);
  const int x = in->source(0);
  const Value& value = in->value(x);
  const bool bytes = checks::is_codes(value), floats = value.type == ScalarType::Float;
  STD_TORCH_CHECK(bytes || floats || value.type == ScalarType::BFloat16,
                  "flatten: x must be torch.uint8, torch.int8, torch.float32 or torch.bfloat16");
  STD_TORCH_CHECK(value.dim() >= 2, "flatten: x must have at least 2 dimensions, but has ",
                  value.dim());
  const bool image = value.dim() == 4;
  const int64_t c = image ? value.size(1) : 1, pixels = image ? value.size(2) * value.size(3) : 1;
  int64_t rest = 1;
  for (int64_t d = 1; d < value.dim(); ++d) rest *= value.size(d);
  *made = {value.type, {value.size(0), rest}};
  const int64_t images = value.size(0), channels = image ? c : rest;
  if (bytes) return std::make_unique<FlattenStep<uint8_t>>(x, images, channels, pixels);
  if (floats) return std::make_unique<FlattenStep<float>>(x, images, channels, pixels);
  return std::make_unique<FlattenStep<uint16_t>>(x, images, channels, pixels);
}

}  // namespace

Step read_step(StepReader* in, Value* made) {
  static constexpr Step (*kReaders[kStepKinds])(StepReader*, Value*) = {
      read_quantize,   read_dequantize, read_conv,           read_linear,      read_add,
      read_concat,     read_pool,       read_adaptive,       read_clamp,       read_flatten,
      read_float_conv, read_float_pool, read_float_adaptive, read_float_linear};
  return kReaders[in->kind()](in, made);
}

}  // namespace pyops::cpu
