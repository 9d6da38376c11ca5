// Uninitialised CPU tensors for drivers.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

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
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dims, sizes.data(), strides.data(), code,
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

// Bytes of a packed weight, which every call streams: in huge pages as far as they fit and the
// system grants them. With 4 KiB pages a walk of the page table is due every 64 cache lines, and
// prefetches wait for it.
inline torch::stable::Tensor new_packed(int64_t bytes) {
  const torch::stable::Tensor packed = new_tensor({bytes}, torch::headeronly::ScalarType::Byte);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHugePage = 2 << 20;
  const auto at = reinterpret_cast<uintptr_t>(packed.mutable_data_ptr());
  const uintptr_t begin = (at + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (at + static_cast<uintptr_t>(bytes)) / kHugePage * kHugePage;
  // A hint: without it, or refused, nothing is wrong.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
  return packed;
}

}  // namespace pyops::cpu
