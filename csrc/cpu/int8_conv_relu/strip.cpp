#include "cpu/int8_conv_relu/strip.h"

#include <cstring>

namespace pyops::cpu {
namespace {

void copy_codes(uint8_t* to, const uint8_t* from, int64_t count, uint8_t flip) {
  std::memcpy(to, from, count);
  if (flip == 0) return;
  for (int64_t i = 0; i < count; ++i) to[i] = to[i] ^ flip;
}

}  // namespace

StripPlan::Axis StripPlan::axis(int64_t kernel, int64_t stride, int64_t dilation) {
  Axis axis = {};
  std::vector<int64_t> index(stride, -1);
  for (int64_t tap = 0; tap < kernel; ++tap) {
    const int64_t phase = tap * dilation % stride;
    if (index[phase] < 0) {
      index[phase] = static_cast<int64_t>(axis.phases.size());
      axis.phases.push_back(phase);
    }
    axis.plane.push_back(index[phase]);
    axis.shift.push_back(tap * dilation / stride);
  }
  axis.reach = axis.shift.back();
  return axis;
}

StripPlan::StripPlan(const ConvShape& shape)
    : shape_(shape),
      y_(axis(shape.kh, shape.stride_h, shape.dilation_h)),
      x_(axis(shape.kw, shape.stride_w, shape.dilation_w)) {
  width_ = shape.ow + x_.reach;
  const int64_t right = width_ - shape.left - shape.w;  // padding that is read
  // Not more than `reach`: no two pixels may have one place.
  overlap_ = shape.stride_w == 1 ? max64(0, min64(x_.reach, min64(shape.left, right))) : 0;
  pitch_ = width_ - overlap_;
}

int64_t StripPlan::bytes(int64_t lines) const {
  const auto planes = static_cast<int64_t>(y_.phases.size() * x_.phases.size());
  return round_up(planes * plane_bytes(lines) + 64, 64);
}

void StripPlan::taps(int64_t lines, std::vector<int64_t>* at) const {
  at->clear();
  const auto planes_x = static_cast<int64_t>(x_.phases.size());
  for (int64_t ky = 0; ky < shape_.kh; ++ky) {
    for (int64_t kx = 0; kx < shape_.kw; ++kx) {
      const int64_t plane = y_.plane[ky] * planes_x + x_.plane[kx];
      const int64_t place = y_.shift[ky] * pitch_ + x_.shift[kx];
      at->push_back(plane * plane_bytes(lines) + place * shape_.c);
    }
  }
}

void StripPlan::write_line(const Image& image, int64_t y, int64_t phase, uint8_t* to) const {
  const int64_t c = shape_.c, step = shape_.stride_w;
  const auto padding = static_cast<uint8_t>(image.padding ^ image.flip);
  if (y < 0 || y >= shape_.h) {
    std::memset(to, padding, width_ * c);
    return;
  }
  const uint8_t* line = image.codes + y * shape_.w * c;
  // Places j whose x = j * step + phase - left lies in the image.
  const int64_t offset = phase - shape_.left;
  const int64_t first = min64(width_, offset < 0 ? (-offset + step - 1) / step : 0);
  const int64_t inside = shape_.w - offset > 0 ? (shape_.w - offset - 1) / step + 1 : 0;
  const int64_t end = max64(first, min64(width_, inside));
  std::memset(to, padding, first * c);
  if (step == 1) {
    copy_codes(to + first * c, line + (first + offset) * c, (end - first) * c, image.flip);
  } else {
    for (int64_t j = first; j < end; ++j) {
      copy_codes(to + j * c, line + (j * step + offset) * c, c, image.flip);
    }
  }
  std::memset(to + end * c, padding, (width_ - end) * c);
}

void StripPlan::write(const Image& image, int64_t line, int64_t used, int64_t lines,
                      uint8_t* to) const {
  for (const int64_t py : y_.phases) {
    for (const int64_t px : x_.phases) {
      for (int64_t i = 0; i < used + y_.reach; ++i) {
        const int64_t y = (line + i) * shape_.stride_h + py - shape_.top;
        write_line(image, y, px, to + i * pitch_ * shape_.c);
      }
      to += plane_bytes(lines);
    }
  }
}

}  // namespace pyops::cpu
