#include "cpu/net/prepared.h"

#include <map>
#include <memory>
#include <mutex>

#include "cpu/net/program.h"

namespace pyops::cpu {
namespace {

// What a call of run_net is given but its inputs, and the program as it was last read.
class PreparedNet {
 public:
  PreparedNet(const std::vector<Tensor>& tensors, const std::vector<int64_t>& steps,
              const std::vector<double>& numbers, const std::vector<int64_t>& outputs)
      : tensors_(tensors), steps_(steps), numbers_(numbers), outputs_(outputs) {}

  std::vector<Tensor> run(const std::vector<Tensor>& inputs) {
    return ready_for(inputs)->run(inputs);
  }

 private:
  std::shared_ptr<const ReadyNet> ready_for(const std::vector<Tensor>& inputs) {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (!ready_ || !ready_->takes(inputs) || has_moved()) {
      ready_ = nullptr;
      memory_.clear();
      for (const Tensor& t : tensors_) memory_.push_back(t.const_data_ptr());
      ready_ =
          std::make_shared<const ReadyNet>(NetCall{inputs, tensors_, steps_, numbers_, outputs_});
    }
    return ready_;
  }

  // Whether a tensor got other memory, as sharing it with other processes gives it.
  bool has_moved() const {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].const_data_ptr() != memory_[i]) return true;
    }
    return false;
  }

  const std::vector<Tensor> tensors_;
  const std::vector<int64_t> steps_;
  const std::vector<double> numbers_;
  const std::vector<int64_t> outputs_;
  std::mutex mutex_;
  std::shared_ptr<const ReadyNet> ready_;
  std::vector<const void*> memory_;  // of tensors_, when ready_ was made
};

struct PreparedNets {
  std::mutex mutex;
  std::map<int64_t, std::shared_ptr<PreparedNet>> nets;
  int64_t next = 0;
};

PreparedNets& prepared() {
  static PreparedNets* all = new PreparedNets;  // tensors may not outlive libtorch: never freed
  return *all;
}

int64_t prepare_net(const std::vector<Tensor>& tensors, const std::vector<int64_t>& steps,
                    const std::vector<double>& numbers, const std::vector<int64_t>& outputs) {
  auto net = std::make_shared<PreparedNet>(tensors, steps, numbers, outputs);
  PreparedNets& all = prepared();
  const std::lock_guard<std::mutex> guard(all.mutex);
  all.nets.emplace(all.next, std::move(net));
  return all.next++;
}

std::vector<Tensor> run_prepared_net(const std::vector<Tensor>& inputs, int64_t number) {
  std::shared_ptr<PreparedNet> net;
  {
    PreparedNets& all = prepared();
    const std::lock_guard<std::mutex> guard(all.mutex);
    const auto found = all.nets.find(number);
    STD_TORCH_CHECK(found != all.nets.end(), "run_prepared_net: net is ", number,
                    ", which prepare_net has not returned, or which is forgotten");
    net = found->second;
  }
  return net->run(inputs);
}

}  // namespace

void forget_prepared_net(int64_t number) {
  std::shared_ptr<PreparedNet> last;  // freed without the lock
  PreparedNets& all = prepared();
  const std::lock_guard<std::mutex> guard(all.mutex);
  const auto found = all.nets.find(number);
  if (found == all.nets.end()) return;
  last = std::move(found->second);
  all.nets.erase(found);
}

STABLE_TORCH_LIBRARY_IMPL(pyops, CPU, m) {
  m.impl("prepare_net", TORCH_BOX(&prepare_net));
  m.impl("run_prepared_net", TORCH_BOX(&run_prepared_net));
}

}  // namespace pyops::cpu
