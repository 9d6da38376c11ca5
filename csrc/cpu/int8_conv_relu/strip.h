// The part of an image under some lines of a convolution's output, with its padding written out.
//
// Codes are split by the phase of their place under the stride, so that along one tap the next
// pixel's code is always one place further:
//
//   plane[py][px][i][j][c] = in[i * stride_h + py - top][j * stride_w + px - left][c]
//   tap (ky, kx) of pixel (oy, ox): plane py = ky * dilation_h % stride_h, i = oy + ky * dilation_h
//                                   / stride_h, and so for kx
//
// Only the phases that a tap reads are there. A line begins `pitch` places after the one before. At
// stride 1 the padding at the end of one line is that at the beginning of the next.
#pragma once
#include <vector>

#include "cpu/common/conv_shape.h"
#include "cpu/int8_gemm/int8_gemm.h"

namespace pyops::cpu {

struct Image {
  const uint8_t* codes;  // [h][w][c]
  uint8_t padding;       // the code of 0
  uint8_t flip;          // 128 turns int8 codes into uint8 ones, and 0 leaves them
};

class StripPlan {
 public:
  explicit StripPlan(const ConvShape& shape);

  int64_t pitch() const { return pitch_; }
  // Of a strip for so many lines of output; readable behind the last place up to a whole tile.
  int64_t bytes(int64_t lines) const;
  // Where the taps of a pixel are, from its place in the first plane on, in a strip for so many
  // lines.
  void taps(int64_t lines, std::vector<int64_t>* at) const;
  // Lines [line, line + used) of the output, into a strip for `lines` of them.
  void write(const Image& image, int64_t line, int64_t used, int64_t lines, uint8_t* to) const;

 private:
  struct Axis {
    std::vector<int64_t> phases;  // those that are read, in order
    std::vector<int64_t> plane;   // of each tap: its index among them
    std::vector<int64_t> shift;   // of each tap
    int64_t reach;                // largest shift
  };
  static Axis axis(int64_t kernel, int64_t stride, int64_t dilation);
  int64_t plane_bytes(int64_t lines) const {
    return ((lines + y_.reach) * pitch_ + overlap_) * shape_.c;
  }
  void write_line(const Image& image, int64_t y, int64_t phase, uint8_t* to) const;

  ConvShape shape_;
  Axis y_, x_;
  int64_t width_;    // places of a line
  int64_t overlap_;  // of them, those that belong to the next line as well
  int64_t pitch_;
};

}  // namespace pyops::cpu
