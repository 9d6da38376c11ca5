// The steps of a net: each reads its integers, numbers and tensors and checks them with the checks
// of the op that it stands for.
#pragma once
#include "cpu/net/program.h"

namespace pyops::cpu {

// Where a step finds what it is given.
class StepReader {
 public:
  StepReader(NetProgram* program, const NetCall& call) : program_(*program), call_(call) {}

  // Begins step `number` at the integer that is next.
  void begin();
  bool at_end() const { return next_int_ == call_.steps.size(); }
  // Refuses what the steps left over.
  void finish() const;
  int64_t kind() const { return kind_; }
  int64_t count() const { return count_; }  // integers of the step
  void expect(const char* name, int64_t count) const;

  // Integers, from the step's first on.
  int64_t integer(int64_t i) const { return call_.steps[first_ + i]; }
  Ints integers(int64_t i, int64_t count) const {
    return {&call_.steps[first_ + i], size_t(count)};
  }
  // The register that integer i names, read by this step.
  int source(int64_t i, bool planes = false);
  const Value& value(int at) const { return program_.registers[at].value; }
  double number();
  const double* numbers(int64_t count);
  const Tensor& tensor();
  OptionalTensor tensor_if(bool there) { return there ? OptionalTensor(tensor()) : std::nullopt; }

  // What the step has taken so far: registers, and elements of tensors.
  const std::vector<int>& reads() const { return reads_; }
  int64_t tensor_elements() const { return tensor_elements_; }

 private:
  NetProgram& program_;
  const NetCall& call_;
  size_t next_int_ = 0, first_ = 0, next_number_ = 0, next_tensor_ = 0;
  int64_t kind_ = 0, count_ = 0;
  std::vector<int> reads_;
  int64_t tensor_elements_ = 0;
};

using Step = std::unique_ptr<NetStep>;

// Of layers.cpp and floats.cpp; the other kinds are in steps.cpp.
Step read_conv(StepReader* reader, Value* made);
Step read_linear(StepReader* reader, Value* made);
Step read_float_conv(StepReader* reader, Value* made);
Step read_float_linear(StepReader* reader, Value* made);
Step read_float_pool(StepReader* reader, Value* made);
Step read_float_adaptive(StepReader* reader, Value* made);

// The step that begins, and what it makes.
Step read_step(StepReader* reader, Value* made);

}  // namespace pyops::cpu
