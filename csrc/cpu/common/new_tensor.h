// Uninitialised CPU tensors for drivers.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

namespace pyops::cpu {

// Contiguous. torch::stable::new_empty looks its op up by name and boxes its arguments on the heap
// in every call, which takes about as long as the rest of a small op.
inline torch::stable::Tensor new_tensor(const std::vector<int64_t>& sizes,
                                        torch::headeronly::ScalarType type) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= sizes[i] > 1 ? sizes[i] : 1;
  }
  const auto code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()),
                                                         sizes.data(), strides.data(), code,
                                                         aoti_torch_device_type_cpu(), 0, &handle));
  return torch::stable::Tensor(handle);
}

}  // namespace pyops::cpu
