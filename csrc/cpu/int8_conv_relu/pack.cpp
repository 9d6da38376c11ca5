#include "cpu/int8_conv_relu/pack.h"

#include <cstring>
#include <vector>

#include "cpu/int8_conv_relu/depthwise.h"
#include "cpu/int8_gemm/pack_parallel.h"

namespace pyops::cpu {
namespace {

constexpr char kMagic[8] = {'p', 'y', 'o', 'p', 's', 'C', '8', '\0'};
constexpr int32_t kVersion = 1;

int64_t groups_begin(int64_t groups) { return 64 + round_up(8 * (groups + 1), 64); }

// Between w[oc][c][taps] and rows[oc][taps][c].
template <bool kToRows>
void reorder(const Int8ConvHeader& h, int64_t oc, int8_t* w, int8_t* rows) {
  const int64_t taps = h.kh * h.kw;
  for (int64_t o = 0; o < oc; ++o, w += taps * h.c, rows += taps * h.c) {
    for (int64_t c = 0; c < h.c; ++c) {
      for (int64_t t = 0; t < taps; ++t) {
        if (kToRows) {
          rows[t * h.c + c] = w[c * taps + t];
        } else {
          w[c * taps + t] = rows[t * h.c + c];
        }
      }
    }
  }
}

bool sizes_possible(const Int8ConvHeader& h) {
  const bool some = h.c >= 0 && h.kh > 0 && h.kw > 0 && h.groups > 0 && h.oc >= 0;
  return some && h.kh <= kMaxK && h.kw <= kMaxK && h.c <= kMaxK && h.kh * h.kw <= kMaxK &&
         h.depth() <= kMaxK && h.oc % h.groups == 0;
}

const char* group_problem(const void* packed, int64_t bytes, int64_t group) {
  const Int8ConvHeader& h = int8_conv_header(packed);
  const int64_t at = int8_conv_groups_at(packed)[group],
                end = int8_conv_groups_at(packed)[group + 1];
  const bool inside = at >= groups_begin(h.groups) && at % 64 == 0 && at <= end && end <= bytes;
  if (!inside) return "its groups are damaged";
  const void* weight = static_cast<const char*>(packed) + at;
  if (end - at < 64) return "its groups are damaged";
  const PackedHeader& g = packed_header(weight);
  const bool same = g.n == h.group_oc() && g.k == h.depth() && g.nr > 0;
  return same ? packed_problem(weight, end - at) : "its groups are damaged";
}

void write_header(Int8ConvHeader header, Int8ConvLayout layout, void* to) {
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.layout = layout;
  std::memcpy(to, &header, sizeof(header));
}

torch::stable::Tensor pack_depthwise(const int8_t* w, const Int8ConvHeader& shape) {
  const torch::stable::Tensor packed = new_packed(64 + depthwise_bytes(shape.oc, shape.depth()));
  char* to = static_cast<char*>(packed.mutable_data_ptr());
  write_header(shape, Int8ConvLayout::depthwise, to);
  depthwise_pack(w, shape.oc, shape.depth(), to + 64);
  return packed;
}

}  // namespace

const char* int8_conv_problem(const void* packed, int64_t bytes) {
  if (bytes < 64) return "shorter than its header of 64";
  const Int8ConvHeader& h = int8_conv_header(packed);
  if (std::memcmp(h.magic, kMagic, sizeof(kMagic)) != 0) {
    return "not made by int8_conv_pack (no header)";
  }
  if (h.version != kVersion) return "another version";
  if (h.layout < Int8ConvLayout::plain || h.layout > Int8ConvLayout::depthwise) {
    return "another layout";
  }
  if (!sizes_possible(h)) return "its header is damaged";
  const char* wrong_length = "its length contradicts its header";
  if (h.layout == Int8ConvLayout::plain) {
    if (h.depth() > 0 && h.oc > bytes) return "its header is damaged";
    return bytes == 64 + h.oc * h.depth() ? nullptr : wrong_length;
  }
  if (h.layout == Int8ConvLayout::depthwise) {
    if (!h.is_depthwise() || h.oc > bytes) return "its header is damaged";
    return bytes == 64 + depthwise_bytes(h.oc, h.depth()) ? nullptr : wrong_length;
  }
  if (h.groups > bytes / 8 || groups_begin(h.groups) > bytes) return "its header is damaged";
  for (int64_t group = 0; group < h.groups; ++group) {
    if (const char* problem = group_problem(packed, bytes, group)) return problem;
  }
  return nullptr;
}

torch::stable::Tensor pack_int8_conv(const int8_t* w, const Int8ConvHeader& shape) {
  if (shape.is_depthwise()) return pack_depthwise(w, shape);
  const int64_t oc = shape.group_oc(), k = shape.depth();
  std::vector<int8_t> rows(shape.oc * k);
  reorder<true>(shape, shape.oc, const_cast<int8_t*>(w), rows.data());
  std::vector<PackPlan> plans;
  std::vector<int64_t> at = {groups_begin(shape.groups)};
  for (int64_t group = 0; group < shape.groups; ++group) {
    plans.push_back(plan_pack(rows.data() + group * oc * k, oc, k));
    at.push_back(at.back() + round_up(plans.back().bytes(), 64));
  }
  const torch::stable::Tensor packed = new_packed(at.back());
  char* to = static_cast<char*>(packed.mutable_data_ptr());
  std::memset(to, 0, at[0]);
  write_header(shape, Int8ConvLayout::groups, to);
  std::memcpy(to + 64, at.data(), 8 * at.size());
  for (int64_t group = 0; group < shape.groups; ++group) {
    const int64_t end = at[group] + plans[group].bytes();
    std::memset(to + end, 0, at[group + 1] - end);
    pack_planned(plans[group], to + at[group]);
  }
  return packed;
}

void unpack_int8_conv(const void* packed, int8_t* w) {
  const Int8ConvHeader& h = int8_conv_header(packed);
  const int64_t oc = h.group_oc(), k = h.depth();
  if (h.layout == Int8ConvLayout::plain) {
    std::memcpy(w, static_cast<const char*>(packed) + 64, h.oc * k);
    return;
  }
  if (h.layout == Int8ConvLayout::depthwise) {
    return depthwise_unpack(int8_conv_body(packed), h.oc, k, w);
  }
  std::vector<int8_t> rows(oc * k);
  for (int64_t group = 0; group < h.groups; ++group) {
    unpack(int8_conv_group(packed, group), rows.data());
    reorder<false>(h, oc, w + group * oc * k, rows.data());
  }
}

}  // namespace pyops::cpu
