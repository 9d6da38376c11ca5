// A weight packed on torch's threads, for the kernel that runs now. Only drivers include this.
#pragma once
#include <vector>

#include "cpu/int8_gemm/operands.h"

namespace pyops::cpu {

// How an int8 weight [n, k] will be packed.
struct PackPlan {
  const int8_t* w;
  int64_t n, k;
  PackedLayout layout;
  std::vector<int32_t> first;  // of a cut layout: where each panel's Excess begins, and their end

  int64_t bytes() const { return packed_bytes(n, k, layout, first.empty() ? 0 : first.back()); }
};

// Empty if cutting does not pay.
inline std::vector<int32_t> first_excess(const int8_t* w, int64_t n, int64_t k,
                                         const Int8GemmKernel& kernel) {
  const int64_t panels = packed_panels(n, kernel.nr);
  std::vector<int32_t> first(panels + 1);
  parallel_range(panels, kSerialCodes / (kernel.nr * (k + 1)), [&](int64_t begin, int64_t end) {
    count_cuts(w, n, k, kernel.nr, begin, end, first.data() + 1);
  });
  int64_t count = 0;
  for (int32_t& at : first) {
    count += at;
    if (count > INT32_MAX) return {};
    at = static_cast<int32_t>(count);
  }
  if (!cut_pays(n, k, layout_of(kernel), count)) return {};
  return first;
}

inline PackPlan plan_pack(const int8_t* w, int64_t n, int64_t k) {
  const Int8GemmKernel& active = active_kernel();
  std::vector<int32_t> first;
  if (active.cut) first = first_excess(w, n, k, active);
  const Int8GemmKernel& kernel = active.cut && first.empty() ? next_of(active) : active;
  return {w, n, k, layout_of(kernel), std::move(first)};
}

// to: plan.bytes() bytes.
inline void pack_planned(const PackPlan& plan, void* to) {
  pack_header(to, plan.n, plan.k, plan.layout, plan.first.data());
  const int64_t nr = plan.layout.nr;
  parallel_range(packed_panels(plan.n, plan.layout.nr), kSerialCodes / (nr * (plan.k + 1)),
                 [&](int64_t begin, int64_t end) { pack_panels(to, plan.w, begin, end); });
}

}  // namespace pyops::cpu
