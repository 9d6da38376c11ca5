// A program over tensors: the steps of a net in one call. run_net runs one.
//
// Registers 0, 1, ... are the inputs, and then what each step makes. A step is its kind, the number
// of its integers behind these two, and the integers; it takes some of `numbers` and `tensors`,
// which follow one another in the order of the steps:
//
//   0 quantize     x, zero, out_dtype                                scale
//   1 dequantize   q, zero, out_dtype                                scale
//   2 conv         x, residual (-1: none), activation, flags (1: bias, 2: slope), out_dtype,
//                  out_zero, zero_x, residual_zero, OC, C / groups, KH, KW, stride (2),
//                  padding (4), dilation (2)
//                                              scale_x, residual_scale, low, high, out_scale
//                                              tensors: packed, scale_w, [bias], [slope]
//   3 linear       x, N, zero_x, activation, flags (1: bias), out_dtype, out_zero
//                                              scale_x, out_scale
//                                              tensors: packed, scale_w, [bias]
//   4 add          a, b, zero_a, zero_b, activation, out_dtype, out_zero
//                                              scale_a, scale_b, low, high, out_scale
//   5 concat       dim, out_dtype, out_zero, then register and zero of each part
//                                              out_scale, then the scale of each part
//   6 pool         x, kind, kernel (2), stride (2), padding (4), dilation (2), ceil_mode,
//                  count_include_pad, divisor, zero, out_dtype, out_zero
//                                              scale, out_scale
//   7 adaptive     x, kind, output size (2), zero, out_dtype, out_zero
//                                              scale, out_scale
//   8 clamp        x, low, high                uint8 codes
//   9 flatten      x                           [N, ...] to [N, rest], in the order of [N, C, H, W]
//  10 float conv   x, residual (-1: none), activation, flags (1: bias, 2: slope), OC, C / groups,
//  KH,
//                  KW, stride (2), padding (4), dilation (2)
//                                              low, high
//                                              tensors: packed, [bias], [slope]
//  11 float pool   x, kind, kernel (2), stride (2), padding (2), dilation (2), ceil_mode,
//                  count_include_pad, divisor
//  12 float adaptive   x, kind, output size (2)
//  13 float linear   x, N, activation, flags (1: bias)      tensors: packed, [bias]
//
// Each computes what the op of its name does, bit for bit: conv_relu is that of float conv and
// float linear, torch's are those of the float pools, whose averages sum in float32.
#pragma once
#include <memory>
#include <vector>

#include "cpu/common/driver.h"

namespace pyops::cpu {

constexpr int64_t kStepKinds = 14;

// Of its elements. Raises on sizes that no memory holds.
int64_t bytes_of(const Value& value);

struct Register {
  Value value;
  int64_t bytes = 0;        // of scratch, where it is made by a step
  bool planes = false;      // an input of [N, C, H, W] memory, which only quantize reads
  int last = -1;            // the step that reads it last
  bool whole = true;        // it holds all images; otherwise those of one pass of its stretch
  int64_t image_bytes = 0;  // of one image, where passes of some images read or make it
};

// Where a register is in one call.
struct Place {
  void* data;  // NHWC or contiguous
  bool planes;
};
using Places = std::vector<Place>;

// One step, checked. It holds no pointers to registers, which get their memory later.
class NetStep {
 public:
  virtual ~NetStep() = default;
  // Whether it can make some images of a batch by themselves.
  virtual bool by_images() const { return false; }
  // images: how many; they begin where the registers do. Of a step that is not by images all.
  virtual void run(const Places& registers, int64_t images) const = 0;

  int y = -1;  // the register that it makes
  std::vector<int> reads;
  int64_t weight_bytes = 0;  // about, where weights are packed as bytes
};

// Steps [first, end), which run for some images of a batch after the others, so that what is
// between them stays in a cache.
struct Stretch {
  int first, end;
  int64_t images;          // of a pass; 0: all, one step after another
  bool apart = false;      // each pass is one thread's; otherwise the threads share its steps
  int64_t pass_bytes = 0;  // of the registers that hold one pass
};

struct NetProgram {
  // Of a batch that the step makes.
  int64_t images_of(const NetStep& step) const {
    const Value& made = registers[step.y].value;
    return made.dim() == 4 ? made.size(0) : 0;
  }

  std::vector<Register> registers;
  std::vector<std::unique_ptr<NetStep>> steps;
  std::vector<Stretch> stretches;  // all steps, in order
  std::vector<int> outputs;
  int inputs = 0;
};

// What a call gives.
struct NetCall {
  const std::vector<Tensor>&inputs, &tensors;
  const std::vector<int64_t>& steps;
  const std::vector<double>& numbers;
  const std::vector<int64_t>& outputs;
};

// The whole call, checked: every register has its type and sizes, none its memory.
NetProgram read_net(const NetCall& call);

// Makes the stretches, for so many threads, and says which registers hold all images. Results do
// not depend on it.
void cut_batch(NetProgram* program, int64_t threads);

// Places of the registers that are neither inputs nor outputs: 64-byte aligned, and shared by
// registers that are not needed at one time. Those that hold one pass are in memory of their own,
// which a thread that runs passes has for itself.
struct Arena {
  std::vector<int64_t> offsets;  // -1: has its memory elsewhere
  int64_t bytes;
};
Arena lay_out(NetProgram* program);

// A program and the memory that it takes, for any inputs of the same types and sizes.
struct ReadyNet {
  int64_t threads;
  NetProgram program;
  Arena arena;
  std::vector<bool> planes;  // whether an input was one of planes

  explicit ReadyNet(const NetCall& call);
  bool takes(const std::vector<Tensor>& inputs) const;
  std::vector<Tensor> run(const std::vector<Tensor>& inputs) const;
};

}  // namespace pyops::cpu
