// 3 tokens: a size that nothing divides, so that packing and driver cannot count on luck.
#include "cpu/common/exp2.h"
#include "cpu/common/half.h"
#include "cpu/sparse_gemm/pack.h"

namespace pyops::cpu::odd {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/fused_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/sparse_gemm/items.inl.h"

constexpr int kVecs = 3, kQuadVecs = 3;

struct Four {
  float w[4];
};

inline Four load_four(const char* p) {
  Four four;
  __builtin_memcpy(&four, p, sizeof four);
  return four;
}
template <int kWhich>
inline F32 spread(const Four& four) {
  return four.w[kWhich];
}

#include "cpu/sparse_gemm/lanes.inl.h"

}  // namespace

#include "cpu/sparse_gemm/entries.inl.h"

}  // namespace pyops::cpu::odd
