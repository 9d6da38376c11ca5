// Float convolution with an epilogue, as every kernel file implements it. Over NHWC images, with g
// the group of output channel oc, and positions outside an image 0:
//
//   sum[n][oy][ox][oc] = sum over ky, kx, c of w[oc][c][ky][kx] *
//       x[n][oy * stride_h - top + ky * dilation_h][ox * stride_w - left + kx * dilation_w][g][c]
//
// followed by the epilogue of common/epilogue.h from `v + bias` on. Sums are float32, in order of
// (ky, kx, c), with fused multiply-adds where the level has them. x and w are both float32 or both
// bf16. Kernels with f32 products widen bf16, which is exact; those with bf16 products multiply
// pairs, whose sums and denormals the instruction treats in its own way.
//
// A convolution is a product of output pixels with output channels, over K = kh * kw * C / groups.
// Nothing is copied to make it one: a tile reads its pixels through a table of pointers, one for
// each pixel and segment of K (a tap, or where the taps of a line are adjacent the line).
#pragma once
#include "cpu/common/conv_shape.h"
#include "cpu/common/epilogue.h"
#include "cpu/common/tap_rows.h"
#include "cpu/isa.h"

namespace pyops::cpu {

enum class ConvProducts : int { f32, bf16 };

// Most pixels of a tile, and of a tile register.
constexpr int kConvPixels = 32, kConvStrip = 16;

// Which k of a panel a tile multiplies, where the weight is sparse (lists.h). Places count values
// of k from the segment's first on, or pairs of them.
struct ConvList {
  const uint32_t* counts;  // [segments]
  const uint16_t* at;      // the places of all segments, one after another
  int nr;                  // channels of the panel: those of the kernel, or half of them
  const void* columns;     // [segments][depth][column]: all of x, or null: it is where rows say
};

// Some pixels of one row of tiles by one panel of output channels. K is what segments * depth comes
// to, where a gathered tile counts its padding.
struct ConvTile {
  // [segments][pixels]: where that segment of that pixel begins; in strips, where there is a step,
  // only of the first pixel.
  const void* const* rows;
  int64_t segments, depth;  // depth: elements of a segment
  int64_t offset;           // elements from there to the group's first channel
  Dtype type;               // of what rows point to
  const void* w;            // the panel (pack.h)
  int pixels, cols;
  // Bytes from one pixel to the next, in every segment, where it is always the same and whole
  // strips of pixels are readable; otherwise 0.
  int64_t step;
  int64_t m0, n0;  // the first pixel and output channel
  const Epilogue* epilogue;
  const char* ahead;  // this tile's share of the panel that comes next, for kernels that prefetch
  const ConvList* list = nullptr;  // of a sparse weight; w holds what is listed. Never in strips
};

// out[r][0 .. ld) = the segments of pixel r one after another, zeros behind them.
struct ConvGather {
  const void* const* rows;
  int64_t segments, depth, offset;
  Dtype type;
  int pixels;
  void* out;             // float32, or for bf16 products bf16
  int64_t ld;            // elements
  bool columns = false;  // instead, out[segment][k or pair of k][column] (lists.h)
};

// Some rows of the output of a depthwise convolution by some channels.
struct ConvDepthwise {
  const ConvShape* shape;    // c == oc == groups
  const TapRow* rows;        // [row_end - row][kh]
  const char* zeros;         // c elements
  Dtype type;                // of x
  const float* w;            // pack.h
  int64_t row, row_end;      // image * oh + oy
  int64_t c, c_end;          // channels, from a multiple of kConvLanes on
  const Epilogue* epilogue;  // its row 0 is the first pixel of the output
};

// A window of a pool: the greatest of its taps, NaN where one is, or their sum in order of (ky,
// kx), divided.
struct FloatWindow {
  Dtype type;
  bool greatest;
  const void* x;                                 // the first tap's channels
  int64_t rows, row_step, columns, column_step;  // steps: bytes
  int64_t c;
  float divisor;
  void* out;
};

// Winograd's F(2 x 2, 3 x 3) (winograd.h): the 4 x 4 pixels that a tile of 2 x 2 outputs reads.
struct WinogradInput {
  const float* const* x;  // [16]
  int64_t c;
  float* out;    // [16][step], whole vectors of channels
  int64_t step;  // elements
};

// Sums of 16 products for tiles next to one another, by a panel of output channels.
struct WinogradOutput {
  const float* sums;  // [16][step], a tile's channels kWinogradCols apart
  int64_t step;       // elements
  int tiles;          // at most kWinogradRun
  int cols;
  int64_t top, bottom;  // the first pixel of either row of the output; bottom -1: there is none
  int pixels;           // of a row that exist
  int64_t n0;
  const Epilogue* epilogue;
};
constexpr int kWinogradRun = 16, kWinogradCols = 32;

struct ConvKernel : KernelRow {
  int mr;  // pixels of a tile
  ConvProducts products;
  void (*tile)(const ConvTile&);
  void (*depthwise)(const ConvDepthwise&);
  void (*gather)(const ConvGather&);
  void (*pool)(const FloatWindow&);
  void (*winograd_input)(const WinogradInput&);
  void (*winograd_output)(const WinogradOutput&);
  void (*start)();  // what a thread calls before its first tile, and behind its last
  void (*stop)();

  bool strips() const { return kr > 2; }  // of pixels, in tile registers
};

extern KernelTable conv_relu_kernels;

#define PYOPS_CONV_RELU_KERNEL(name, isa, test_only, mr, nr, kr, products) \
  namespace name {                                                         \
  void conv_tile(const ConvTile& tile);                                    \
  void conv_depthwise(const ConvDepthwise& task);                          \
  void conv_gather(const ConvGather& gather);                              \
  void conv_pool(const FloatWindow& window);                               \
  void conv_winograd_input(const WinogradInput& input);                    \
  void conv_winograd_output(const WinogradOutput& output);                 \
  void conv_start();                                                       \
  void conv_stop();                                                        \
  }
#include "cpu/conv_relu/kernels.inc"
#undef PYOPS_CONV_RELU_KERNEL

}  // namespace pyops::cpu
