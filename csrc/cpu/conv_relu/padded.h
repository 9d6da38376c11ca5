// An image copied once with its padding. Only drivers include this.
#pragma once
#include <cstring>

#include "cpu/common/buffer.h"
#include "cpu/common/driver.h"
#include "cpu/conv_relu/rows.h"

namespace pyops::cpu {

// The image with its padding as zeros, in `buffer`.
inline void pad_image(ConvInput* input, Buffer* buffer) {
  ConvShape& s = input->shape;
  const int64_t pixel = s.c * input->element, h = s.h + s.top + s.bottom;
  const int64_t w = s.w + s.left + s.right, line = w * pixel;
  char* out = static_cast<char*>(buffer->get(s.n * h * line));
  parallel_range(s.n * h, kSerialCodes / (line + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      char* to = out + i * line;
      const int64_t y = i % h - s.top;
      if (y < 0 || y >= s.h) {
        std::memset(to, 0, line);
        continue;
      }
      const char* from = input->x + (i / h * s.h + y) * s.w * pixel;
      std::memset(to, 0, s.left * pixel);
      std::memcpy(to + s.left * pixel, from, s.w * pixel);
      std::memset(to + (s.left + s.w) * pixel, 0, s.right * pixel);
    }
  });
  input->end = out + s.n * h * line;
  s.h = h, s.w = w;
  s.top = s.bottom = s.left = s.right = 0;
  input->x = out;
}

}  // namespace pyops::cpu
