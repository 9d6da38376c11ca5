// What the drivers of linear ops share on their way from tensors to a product: contiguous operands,
// outputs, epilogues, loops on torch's threads. Only drivers include this.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <vector>

#include "checks/common.h"
#include "cpu/common/epilogue.h"
#include "cpu/common/new_tensor.h"
#include "cpu/common/team.h"

namespace pyops::cpu {

using checks::OptionalTensor;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Below so many codes to convert a second thread costs more than it saves.
constexpr int64_t kSerialCodes = 1 << 14;

// While one lives, the loops of its thread run on that thread alone.
class OneThread {
 public:
  OneThread() : before_(here()) { here() = true; }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;
  ~OneThread() { here() = before_; }
  static bool& here() {
    static thread_local bool alone = false;
    return alone;
  }

 private:
  const bool before_;
};

// How many threads a loop can have.
inline int64_t num_threads() {
  if (OneThread::here()) return 1;
  const Team* team = Team::current();
  return team ? team->threads() : torch::stable::get_num_threads();
}

template <class F>
void parallel_range(int64_t count, int64_t grain, const F& f) {
  // Of one part: not worth a call into libtorch.
  if (count <= grain || count == 1 || OneThread::here()) return f(0, count);
  if (Team* team = Team::current()) return team->loop(count, grain, f);
  torch::stable::parallel_for(0, count, grain > 0 ? grain : 1, f);
}

// f(), whose loops one team of torch's threads shares.
template <class F>
void run_as_team(const F& f) {
  const int64_t threads = min64(num_threads(), Team::kMostThreads);
  if (threads == 1 || Team::current()) return f();
  Team team(threads);
  std::exception_ptr error;
  const auto caller = std::this_thread::get_id();
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    if (begin == 0) {
      try {
        team.lead(end == threads, f);
      } catch (...) {  // may not leave a loop of libtorch
        error = std::current_exception();
      }
    } else if (std::this_thread::get_id() != caller) {  // who might still have to lead
      team.follow();
    }
  });
  if (error) std::rethrow_exception(error);
}

template <class T>
const T* pointer(const OptionalTensor& t) {
  return t.has_value() ? static_cast<const T*>(t->const_data_ptr()) : nullptr;
}

inline Tensor dense(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}
inline OptionalTensor dense(const OptionalTensor& t) { return t.has_value() ? dense(*t) : t; }

inline Tensor output_like(const Tensor& input, int64_t n, int64_t out_dtype) {
  std::vector<int64_t> sizes(input.sizes().begin(), input.sizes().end());
  sizes.back() = n;
  return new_tensor(sizes, kTypes[out_dtype]);
}

// The epilogue's operands, contiguous, and kept alive while it points into them.
struct Operands {
  OptionalTensor scale_w, bias, residual;
};

inline Epilogue epilogue_of(const Operands& operands, int64_t activation, int64_t out_dtype,
                            const Tensor& out) {
  Epilogue e = {};
  e.scale_w = pointer<float>(operands.scale_w);
  e.bias = pointer<float>(operands.bias);
  if (operands.residual.has_value()) {
    e.residual = operands.residual->const_data_ptr();
    e.residual_type = checks::float_dtype("epilogue", "residual", *operands.residual);
  }
  e.activation = static_cast<Activation>(activation);
  e.out_type = static_cast<Dtype>(out_dtype);
  e.out = out.mutable_data_ptr();
  e.ld = out.size(out.dim() - 1);
  return e;
}

}  // namespace pyops::cpu
