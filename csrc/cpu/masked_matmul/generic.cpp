// Chunks of 16 tokens in plain C++, for any CPU.
#include "cpu/masked_matmul/masked_matmul.h"

namespace pyops::cpu::generic::masked {
namespace {

constexpr int64_t kTokens = 16;

#include "cpu/masked_matmul/plain.inl.h"

}  // namespace

#include "cpu/masked_matmul/entries.inl.h"

}  // namespace pyops::cpu::generic::masked
