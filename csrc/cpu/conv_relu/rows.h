// The tables of pointers through which tiles read their input.
#pragma once
#include "cpu/common/conv_shape.h"
#include "cpu/conv_relu/pack.h"

namespace pyops::cpu {

// How the tiles of a convolution find their pixels.
struct ConvInput {
  ConvShape shape;
  const char* x;
  int64_t element;    // bytes
  const char* end;    // behind the last byte that may be read
  const char* zeros;  // shape.c elements: what positions outside the image point to
  bool first;         // of a segment only the first pointer is read where there is a step
  bool lines;         // the taps of a line are adjacent in memory, and so in K
};

// What one tile reads. Segments are lines of taps where all of them are inside the image, taps
// elsewhere.
struct ConvRows {
  int64_t segments, depth, step;  // as in ConvTile
};

// Output pixels [first, first + pixels), whose tables go to rows [segments][pixels].
ConvRows fill_rows(const ConvInput& input, int64_t first, int pixels, const void** rows);

}  // namespace pyops::cpu
