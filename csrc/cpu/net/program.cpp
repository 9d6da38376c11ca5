// Reads and checks a call.
#include "cpu/net/program.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cpu/common/nhwc.h"
#include "cpu/net/steps.h"

namespace pyops::cpu {
namespace {

constexpr char kOp[] = "run_net";

// What an error says, without the place in the sources before it: "function, file:line, words".
std::string words_of(const std::exception& error) {
  const std::string text = error.what();
  const size_t file = text.find(", "), words = text.find(", ", file + 2);
  if (file == std::string::npos || words == std::string::npos) return text;
  return text.find(".cpp:", file) < words || text.find(".h:", file) < words ? text.substr(words + 2)
                                                                            : text;
}

void read_inputs(NetProgram* program, const std::vector<Tensor>& inputs) {
  STD_TORCH_CHECK(!inputs.empty(), kOp, ": inputs must hold at least 1 tensor, but is empty");
  program->inputs = static_cast<int>(inputs.size());
  program->registers.reserve(inputs.size() + 64);
  for (const Tensor& x : inputs) {
    checks::cpu_tensor(kOp, "inputs", x);
    Register input;
    input.value = value_of(x);
    input.planes = is_planes(x);
    program->registers.push_back(std::move(input));
  }
}

void read_outputs(NetProgram* program, const std::vector<int64_t>& outputs) {
  STD_TORCH_CHECK(!outputs.empty(), kOp, ": outputs must name at least 1 register, but is empty");
  for (const int64_t at : outputs) {
    const int64_t count = static_cast<int64_t>(program->registers.size());
    const auto& known = program->outputs;
    const bool first = std::find(known.begin(), known.end(), at) == known.end();
    STD_TORCH_CHECK(at >= program->inputs && at < count && first, kOp, ": output register ", at,
                    " must be one that a step makes, named once");
    program->outputs.push_back(static_cast<int>(at));
  }
}

}  // namespace

int64_t bytes_of(const Value& value) {
  int64_t bytes = 1;
  for (size_t i = 0; i < 6; ++i) {
    if (kTypes[i] == value.type) bytes = dtype_bytes(static_cast<Dtype>(i));
  }
  for (const int64_t size : value.sizes) {
    const bool fits = !__builtin_mul_overflow(bytes, size, &bytes) && bytes < int64_t{1} << 48;
    STD_TORCH_CHECK(fits, "it makes more than 2^48 bytes");
  }
  return bytes;
}

void StepReader::begin() {
  const size_t left = call_.steps.size() - next_int_;
  STD_TORCH_CHECK(left >= 2, "it has no kind and count");
  kind_ = call_.steps[next_int_];
  count_ = call_.steps[next_int_ + 1];
  STD_TORCH_CHECK(kind_ >= 0 && kind_ < kStepKinds, "kind code ", kind_, " is unknown");
  STD_TORCH_CHECK(count_ >= 0 && count_ <= static_cast<int64_t>(left - 2), "it counts ", count_,
                  " integers, but there are ", left - 2);
  first_ = next_int_ + 2;
  next_int_ = first_ + static_cast<size_t>(count_);
  reads_.clear();
  tensor_elements_ = 0;
}

void StepReader::expect(const char* name, int64_t count) const {
  STD_TORCH_CHECK(count_ == count, name, " takes ", count, " integers, but has ", count_);
}

int StepReader::source(int64_t i, bool planes) {
  const int64_t at = integer(i), count = static_cast<int64_t>(program_.registers.size());
  STD_TORCH_CHECK(at >= 0 && at < count, "it reads register ", at, ", but there are ", count);
  Register& found = program_.registers[at];
  found.last = static_cast<int>(program_.steps.size());
  reads_.push_back(static_cast<int>(at));
  found.planes = found.planes && planes;
  return static_cast<int>(at);
}

const double* StepReader::numbers(int64_t count) {
  STD_TORCH_CHECK(call_.numbers.size() - next_number_ >= static_cast<size_t>(count),
                  "the steps take more than the ", call_.numbers.size(), " numbers that are given");
  const double* at = call_.numbers.data() + next_number_;
  next_number_ += static_cast<size_t>(count);
  return at;
}

double StepReader::number() { return *numbers(1); }

const Tensor& StepReader::tensor() {
  STD_TORCH_CHECK(next_tensor_ < call_.tensors.size(), "the steps take more than the ",
                  call_.tensors.size(), " tensors that are given");
  tensor_elements_ += call_.tensors[next_tensor_].numel();
  return call_.tensors[next_tensor_++];
}

void StepReader::finish() const {
  STD_TORCH_CHECK(next_number_ == call_.numbers.size(), kOp, ": the steps take ", next_number_,
                  " numbers, but ", call_.numbers.size(), " are given");
  STD_TORCH_CHECK(next_tensor_ == call_.tensors.size(), kOp, ": the steps take ", next_tensor_,
                  " tensors, but ", call_.tensors.size(), " are given");
}

NetProgram read_net(const NetCall& call) {
  NetProgram program;
  read_inputs(&program, call.inputs);
  STD_TORCH_CHECK(!call.steps.empty(), kOp, ": steps must hold at least 1 step, but is empty");
  StepReader reader(&program, call);
  while (!reader.at_end()) {
    try {
      reader.begin();
      Register made;
      std::unique_ptr<NetStep> step = read_step(&reader, &made.value);
      made.bytes = round_up(max64(1, bytes_of(made.value)), 64);
      step->y = static_cast<int>(program.registers.size());
      step->reads = reader.reads();
      step->weight_bytes = reader.tensor_elements();
      program.registers.push_back(std::move(made));
      program.steps.push_back(std::move(step));
    } catch (const std::exception& error) {
      STD_TORCH_CHECK(false, kOp, ": step ", program.steps.size(), ": ", words_of(error));
    }
  }
  reader.finish();
  read_outputs(&program, call.outputs);
  cut_batch(&program, num_threads());
  return program;
}

}  // namespace pyops::cpu
