#include "cpu/conv_relu/pack.h"

#include <cstring>

#include "cpu/common/half.h"
#include "cpu/conv_relu/winograd.h"

namespace pyops::cpu {
namespace {

constexpr char kMagic[8] = {'p', 'y', 'o', 'p', 's', 'C', 'F', '\0'};
constexpr int32_t kVersion = 1;
constexpr int64_t kMostBytes = int64_t{1} << 46;

// One weight, of either type and of its place among products of either kind.
struct Codec {
  bool from_bf16, to_bf16;

  void put(const void* w, int64_t at, char* out, int64_t to) const {
    if (to_bf16) {
      std::memcpy(out + 2 * to, static_cast<const char*>(w) + 2 * at, 2);
      return;
    }
    const float v = from_bf16 ? bf16_to_float(static_cast<const uint16_t*>(w)[at])
                              : static_cast<const float*>(w)[at];
    std::memcpy(out + 4 * to, &v, 4);
  }
  void get(const char* in, int64_t from, void* w, int64_t at) const {
    if (to_bf16) {
      std::memcpy(static_cast<char*>(w) + 2 * at, in + 2 * from, 2);
      return;
    }
    float v;
    std::memcpy(&v, in + 4 * from, 4);
    if (from_bf16) {
      static_cast<uint16_t*>(w)[at] = static_cast<uint16_t>(float_bits(v) >> 16);
    } else {
      static_cast<float*>(w)[at] = v;
    }
  }
};

Codec codec_of(const ConvHeader& h) {
  return {static_cast<Dtype>(h.type) == Dtype::bf16,
          static_cast<ConvProducts>(h.products) == ConvProducts::bf16};
}

// visit(at, to): element `at` of the weight [oc][cg][kh][kw] stands at `to` of part `part`.
template <class F>
void each_weight(const ConvHeader& h, int64_t part, const F& visit) {
  const int64_t taps = h.taps();
  if (h.depthwise()) {
    const int64_t line = round_up(h.oc, kConvLanes);
    for (int64_t c = 0; c < h.oc; ++c) {
      for (int64_t t = 0; t < taps; ++t) visit(c * taps + t, t * line + c);
    }
    return;
  }
  const int64_t group = part / h.panels(), first = part % h.panels() * h.nr;
  const int64_t cols = min64(h.nr, h.group_oc() - first);
  const int64_t pair = h.element_bytes() == 2 ? 2 : 1;
  for (int64_t col = 0; col < cols; ++col) {
    const int64_t row = (group * h.group_oc() + first + col) * h.k();
    for (int64_t c = 0; c < h.cg; ++c) {
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t k = t * h.cg + c;
        visit(row + c * taps + t, (k / pair * h.nr + col) * pair + k % pair);
      }
    }
  }
}

int64_t part_bytes(const ConvHeader& h) {
  return h.depthwise() ? h.taps() * round_up(h.oc, kConvLanes) * 4 : h.panel_bytes();
}

bool known_format(const ConvHeader& h) {
  const auto type = static_cast<Dtype>(h.type);
  const bool types = (type == Dtype::f32 && h.products == 0) ||
                     (type == Dtype::bf16 && (h.products == 0 || h.products == 1));
  const bool layout = h.nr >= 0 && h.nr <= 4096 && h.kr >= 0 && h.kr <= 4096;
  const bool shape = h.oc >= 0 && h.cg >= 0 && h.kh >= 1 && h.kw >= 1 && h.groups >= 1;
  if (!types || !layout || !shape || h.oc % h.groups != 0) return false;
  if (h.winograd() && (h.algorithm != 1 || !winograd_takes(h))) return false;
  if (h.nr == 0) return h.kr == 0 && h.products == 0;
  return h.kr != 0 || (is_depthwise(h.oc, h.cg, h.groups) && h.products == 0);
}

}  // namespace

ConvHeader conv_header_of(const ConvKernel& kernel, Dtype type, int64_t oc, int64_t cg, int64_t kh,
                          int64_t kw, int64_t groups, ConvAlgorithm algorithm) {
  const bool depthwise = is_depthwise(oc, cg, groups);
  ConvHeader h = {};
  std::memcpy(h.magic, kMagic, 8);
  h.version = kVersion;
  h.nr = kernel.nr;
  h.kr = depthwise ? 0 : kernel.kr;
  h.type = static_cast<int32_t>(type);
  h.products = depthwise ? 0 : static_cast<int32_t>(kernel.products);
  h.oc = static_cast<int32_t>(oc), h.cg = static_cast<int32_t>(cg);
  h.kh = static_cast<int32_t>(kh), h.kw = static_cast<int32_t>(kw);
  h.groups = static_cast<int32_t>(groups);
  h.algorithm = static_cast<int32_t>(algorithm);
  return h;
}

int64_t conv_parts(const ConvHeader& h) { return h.depthwise() ? 1 : h.groups * h.panels(); }

int64_t conv_direct_bytes(const ConvHeader& h) {
  return round_up(64 + conv_parts(h) * part_bytes(h), 64);
}

int64_t conv_bytes(const ConvHeader& h) {
  if (!known_format(h)) return -1;
  // In double first: a product of damaged sizes could wrap around to the right length.
  const double all = (h.oc + 4096.0 * h.groups) * (h.cg + 1.0) * (h.kh + 1.0) * (h.kw + 4096.0);
  if (all > static_cast<double>(kMostBytes)) return -1;
  if (h.nr == 0) return 64 + h.oc * h.k() * dtype_bytes(static_cast<Dtype>(h.type));
  return conv_direct_bytes(h) + (h.winograd() ? winograd_bytes(h) : 0);
}

const char* conv_problem(const void* packed, int64_t bytes) {
  if (bytes < 64) return "shorter than its header of 64 bytes";
  const ConvHeader& h = conv_header(packed);
  if (std::memcmp(h.magic, kMagic, 8) != 0) return "not made by conv_relu_pack (no header)";
  if (h.version != kVersion) return "made by another version of pyops";
  const int64_t expected = conv_bytes(h);
  if (expected < 0) return "its header is damaged";
  return bytes == expected ? nullptr : "its length contradicts its header";
}

void pack_conv(void* packed, const void* w, int64_t first, int64_t last) {
  const ConvHeader& h = conv_header(packed);
  const Codec codec = codec_of(h);
  const int64_t bytes = part_bytes(h);
  for (int64_t part = first; part < last; ++part) {
    char* out = static_cast<char*>(packed) + 64 + part * bytes;
    const bool ends = part + 1 == conv_parts(h);  // with what rounds the length up
    const int64_t room = ends ? conv_direct_bytes(h) - 64 - part * bytes : bytes;
    std::memset(out, 0, static_cast<size_t>(room));
    each_weight(h, part, [&](int64_t at, int64_t to) { codec.put(w, at, out, to); });
  }
  if (h.winograd()) pack_winograd(packed, static_cast<const float*>(w), first, last);
}

void unpack_conv(const void* packed, void* w) {
  const ConvHeader& h = conv_header(packed);
  const char* in = static_cast<const char*>(packed) + 64;
  const Codec codec = codec_of(h);
  if (h.nr == 0) {
    std::memcpy(w, in, static_cast<size_t>(conv_bytes(h) - 64));
    return;
  }
  const int64_t bytes = part_bytes(h);
  for (int64_t part = 0; part < conv_parts(h); ++part) {
    each_weight(h, part,
                [&](int64_t at, int64_t from) { codec.get(in + part * bytes, from, w, at); });
  }
}

}  // namespace pyops::cpu
