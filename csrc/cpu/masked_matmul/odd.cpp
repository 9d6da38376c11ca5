// Chunks of 5 tokens: a size that nothing divides, so that the driver cannot count on luck.
#include "cpu/masked_matmul/masked_matmul.h"

namespace pyops::cpu::odd::masked {
namespace {

constexpr int64_t kTokens = 5;

#include "cpu/masked_matmul/plain.inl.h"

}  // namespace

#include "cpu/masked_matmul/entries.inl.h"

}  // namespace pyops::cpu::odd::masked
