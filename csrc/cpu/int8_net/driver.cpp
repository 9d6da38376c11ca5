// int8_net: check all of a program, give its registers their memory, run step after step.
#include "cpu/common/buffer.h"
#include "cpu/common/nhwc.h"
#include "cpu/int8_net/program.h"

namespace pyops::cpu {
namespace {

// Bytes behind the last register that a kernel may read (and ignore).
constexpr int64_t kArenaSlack = 64;

void place_inputs(NetProgram* program) {
  for (int i = 0; i < program->inputs; ++i) {
    Register& input = program->registers[i];
    if (!input.planes) input.given = arranged(input.given);
    // Inputs are read alone; one pointer type serves all registers.
    input.data = const_cast<void*>(input.given.const_data_ptr());
  }
}

std::vector<Tensor> int8_net(const std::vector<Tensor>& inputs, const std::vector<Tensor>& tensors,
                             const std::vector<int64_t>& steps, const std::vector<double>& numbers,
                             const std::vector<int64_t>& outputs) {
  NetProgram program = read_net({inputs, tensors, steps, numbers, outputs});
  const Arena arena = lay_out(program);
  // Kept by the thread: pages of a new tensor would have to be made for each register and call.
  static thread_local Buffer buffer;
  char* scratch = static_cast<char*>(buffer.get(arena.bytes + kArenaSlack));
  place_inputs(&program);
  std::vector<Tensor> made;
  for (const int at : program.outputs) {
    made.push_back(new_arranged(program.registers[at].value));
    program.registers[at].data = made.back().mutable_data_ptr();
  }
  for (size_t at = 0; at < program.registers.size(); ++at) {
    if (arena.offsets[at] >= 0) program.registers[at].data = scratch + arena.offsets[at];
  }
  run_as_team([&] {
    for (const auto& step : program.steps) step->run(program.registers);
  });
  return made;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) { m.impl("int8_net", TORCH_BOX(&int8_net)); }

}  // namespace pyops::cpu
