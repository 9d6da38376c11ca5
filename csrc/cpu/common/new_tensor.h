// Uninitialised CPU tensors for drivers.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

namespace pyops::cpu {

// torch::stable::new_empty looks its op up by name and boxes its arguments on the heap in every
// call, which takes about as long as the rest of a small op.
inline torch::stable::Tensor new_tensor(const std::vector<int64_t>& sizes,
                                        const std::vector<int64_t>& strides,
                                        torch::headeronly::ScalarType type) {
  const auto code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  const auto dims = static_cast<int64_t>(sizes.size());
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dims, sizes.data(), strides.data(), code,
                                                         aoti_torch_device_type_cpu(), 0, &handle));
  return torch::stable::Tensor(handle);
}

// Contiguous.
inline torch::stable::Tensor new_tensor(const std::vector<int64_t>& sizes,
                                        torch::headeronly::ScalarType type) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= sizes[i] > 1 ? sizes[i] : 1;
  }
  return new_tensor(sizes, strides, type);
}

}  // namespace pyops::cpu
