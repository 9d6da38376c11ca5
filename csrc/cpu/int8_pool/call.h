// The ops on codes: what each is asked to do, checked, and then run on pointers.
//
// Every constructor raises where an argument does not fit. Tensors are contiguous, images have the
// memory of [N, H, W, C]; inputs and outputs do not overlap. `images`: the first so many of a
// batch; of tensors that are no images, all is run.
#pragma once
#include "checks/int8_pool.h"
#include "cpu/common/driver.h"
#include "cpu/int8_pool/windows.h"

namespace pyops::cpu {

// Scales and zero points of a pool's input and output, as the ops take them.
struct PoolNumbers {
  double scale;
  int64_t zero;
  int64_t out_dtype;
  double out_scale;
  int64_t out_zero;
};

struct PoolArguments {
  Ints kernel, stride, padding, dilation;
  bool ceil_mode, count_include_pad;
  int64_t divisor;  // 0, or what every window is divided by
};

class PoolCall {
 public:
  PoolCall(const char* op, const Value& x, int64_t kind, const PoolArguments& a,
           const PoolNumbers& numbers);
  // Adaptive: windows that make output_size positions.
  PoolCall(const char* op, const Value& x, int64_t kind, Ints output_size,
           const PoolNumbers& numbers);

  Value out() const;
  void run(const void* x, void* out, int64_t images) const;

 private:
  PoolCall(const char* op, const Value& x, int64_t kind, const PoolNumbers& numbers);
  void check_windows(const char* op);
  void run_rows(const uint8_t* x, char* out, int64_t begin, int64_t end) const;
  void scales_of_row(int64_t y, float* scales) const;

  int64_t n_, c_, h_, w_;
  Dtype from_, type_;
  PoolKind kind_;
  PoolNumbers numbers_;
  Axis ys_, xs_;
  int64_t divisor_ = 0, most_taps_ = 0;
  bool plain_;  // the greatest code as it is
};

// int8_quantize, int8_dequantize and int8_add: one code after another.
class CodesCall {
 public:
  static CodesCall quantize(const char* op, const Value& x, double scale, int64_t zero,
                            int64_t out_dtype);
  static CodesCall dequantize(const char* op, const Value& q, double scale, int64_t zero,
                              int64_t out_dtype);

  struct Add {
    double scale_a;
    int64_t zero_a;
    double scale_b;
    int64_t zero_b;
    int64_t activation;
    double low, high;
    int64_t out_dtype;
    double out_scale;
    int64_t out_zero;
  };
  static CodesCall add(const char* op, const Value& a, const Value& b, const Add& how);

  const Value& out() const { return out_; }
  // b: null but for a sum.
  void run(const void* a, const void* b, void* out, int64_t images) const;
  // The same of a 4-D tensor whose memory is [N, C, H, W]; the output's is [N, H, W, C].
  void run_planes(const void* a, void* out, int64_t images) const;

 private:
  Value out_;
  CodeRows rows_ = {};  // lacks the pointers
};

class ConcatCall {
 public:
  ConcatCall(const char* op, const std::vector<const Value*>& xs, const double* scales,
             const int64_t* zeros, int64_t dim, double out_scale, int64_t out_zero,
             int64_t out_dtype);

  const Value& out() const { return out_; }
  // Input i; each writes its own part of out.
  void run(size_t i, const void* x, void* out) const;

 private:
  struct Part {
    CodeRows rows;  // lacks the pointers
    int64_t at;     // elements before it in a row of the output
    bool copies;    // has the output's scale, zero point and type
  };
  Value out_;
  std::vector<Part> parts_;
};

}  // namespace pyops::cpu
