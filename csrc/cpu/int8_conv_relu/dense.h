// Convolutions whose groups have several input channels, as products of int8_gemm's kernels.
//
// A thread takes pixels of the output, or channels where there are few pixels. It writes the part
// of the input under some lines of pixels with its padding (strip.h) and multiplies there, tap
// after tap, without copying any code twice. Kernels without taps, and groups whose channels no
// tile of theirs divides, get rows of K codes instead, a block at a time.
#pragma once
#include "cpu/common/conv_shape.h"
#include "cpu/int8_gemm/int8_gemm.h"

namespace pyops::cpu {

struct CodesImages {
  const uint8_t* codes;  // NHWC, int8 or uint8
  bool is_signed;
  uint8_t padding;  // the code of 0
};

// packed: pack.h, layout groups, or a sparse weight of panels. The epilogue's w_sum and zero_shift
// are set here; its rows are the pixels of the output; find_direct_codes was called for it.
void dense_conv(const ConvShape& shape, const CodesImages& input, const void* packed,
                const Epilogue& epilogue);

}  // namespace pyops::cpu
