// run_net: check all of a program, give its registers their memory, run step after step.
#include <algorithm>

#include "cpu/common/buffer.h"
#include "cpu/common/nhwc.h"
#include "cpu/net/program.h"

namespace pyops::cpu {
namespace {

// Bytes behind the last register that a kernel may read (and ignore).
constexpr int64_t kArenaSlack = 64;

std::vector<Tensor> run_net(const std::vector<Tensor>& inputs, const std::vector<Tensor>& tensors,
                            const std::vector<int64_t>& steps, const std::vector<double>& numbers,
                            const std::vector<int64_t>& outputs) {
  return ReadyNet({inputs, tensors, steps, numbers, outputs}).run(inputs);
}

// Passes [first, last) of a stretch, with registers of one pass in the calling thread's memory.
void run_passes(const ReadyNet& net, const Stretch& s, const Places& places, int64_t first,
                int64_t last) {
  static thread_local Buffer buffer;
  const NetProgram& program = net.program;
  const int64_t images = program.images_of(*program.steps[s.first]);
  char* scratch = static_cast<char*>(buffer.get(s.pass_bytes + kArenaSlack));
  Places here = places;
  for (int i = s.first; i < s.end; ++i) {
    const int y = program.steps[i]->y;
    if (!program.registers[y].whole) here[y].data = scratch + net.arena.offsets[y];
  }
  for (int64_t pass = first; pass < last; ++pass) {
    const int64_t begin = pass * s.images, count = min64(s.images, images - begin);
    for (size_t at = 0; at < here.size(); ++at) {
      const Register& r = program.registers[at];
      if (r.whole) here[at].data = static_cast<char*>(places[at].data) + begin * r.image_bytes;
    }
    for (int i = s.first; i < s.end; ++i) program.steps[i]->run(here, count);
  }
}

void run_stretch(const ReadyNet& net, const Stretch& s, const Places& places) {
  const NetProgram& program = net.program;
  const int64_t images = program.images_of(*program.steps[s.first]);
  if (s.images == 0) {
    for (int i = s.first; i < s.end; ++i) program.steps[i]->run(places, images);
    return;
  }
  const int64_t passes = (images + s.images - 1) / s.images;
  if (!s.apart) return run_passes(net, s, places, 0, passes);
  parallel_range(passes, 1, [&](int64_t first, int64_t last) {
    const OneThread alone;
    run_passes(net, s, places, first, last);
  });
}

}  // namespace

ReadyNet::ReadyNet(const NetCall& call)
    : threads(num_threads()), program(read_net(call)), arena(lay_out(&program)) {
  for (const Tensor& x : call.inputs) planes.push_back(is_planes(x));
}

bool ReadyNet::takes(const std::vector<Tensor>& inputs) const {
  if (static_cast<int>(inputs.size()) != program.inputs || threads != num_threads()) return false;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& x = inputs[i];
    const Value& value = program.registers[i].value;
    const auto sizes = x.sizes();
    const bool same =
        x.is_cpu() && x.scalar_type() == value.type &&
        std::equal(sizes.begin(), sizes.end(), value.sizes.begin(), value.sizes.end());
    if (!same || is_planes(x) != planes[i]) return false;
  }
  return true;
}

std::vector<Tensor> ReadyNet::run(const std::vector<Tensor>& inputs) const {
  // Kept by the thread: pages of a new tensor would have to be made for each register and call.
  static thread_local Buffer buffer;
  char* scratch = static_cast<char*>(buffer.get(arena.bytes + kArenaSlack));
  Places places(program.registers.size());
  for (size_t at = 0; at < places.size(); ++at) {
    if (arena.offsets[at] >= 0 && program.registers[at].whole) {
      places[at].data = scratch + arena.offsets[at];
    }
  }
  std::vector<Tensor> given, made;
  for (int i = 0; i < program.inputs; ++i) {
    const bool planes = program.registers[i].planes;
    given.push_back(planes ? inputs[i] : arranged(inputs[i]));
    // Inputs are read alone; one pointer type serves all registers.
    places[i] = {const_cast<void*>(given.back().const_data_ptr()), planes};
  }
  for (const int at : program.outputs) {
    made.push_back(new_arranged(program.registers[at].value));
    places[at].data = made.back().mutable_data_ptr();
  }
  run_as_team([&] {
    for (const Stretch& stretch : program.stretches) run_stretch(*this, stretch, places);
  });
  return made;
}

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) { m.impl("run_net", TORCH_BOX(&run_net)); }

}  // namespace pyops::cpu
