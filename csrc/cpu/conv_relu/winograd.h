// Winograd's F(2 x 2, 3 x 3) for convolutions of 3 x 3 taps, stride 1, without dilation and groups:
// a tile of 2 x 2 outputs takes 16 products of transformed pixels and weights instead of 36.
//
//   out tile = A^T [ sum over c of (G w G^T) * (B^T d B) ] A       d: the 4 x 4 pixels it reads
//
//   G = [1 0 0; .5 .5 .5; .5 -.5 .5; 0 0 1]     A, B: winograd.inl.h
//
// (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015.) With u = 2^-24 the
// result is within (C + 10) u |A^T| [ sum over c of (|G| |w| |G^T|) * (|B^T| |d| |B|) ] |A| of the
// exact one: each of the C fused products rounds once, G w G^T once, B^T d B twice and A^T m A four
// times. What is not finite reaches the outputs that it reaches directly, but an infinity, which
// meets itself there with both signs, may become NaN. Values above 2^126 may overflow, and products
// that underflow are outside the bound.
#pragma once
#include "cpu/conv_relu/work.h"

namespace pyops::cpu {

// Whether weights of that shape can be packed for it.
inline bool winograd_takes(const ConvHeader& h) {
  return static_cast<Dtype>(h.type) == Dtype::f32 && h.kh == 3 && h.kw == 3 && h.groups == 1;
}
// Whether a call runs so: not where tiles hang over small images so far that the direct way takes
// less than 1.5 times the products.
inline bool winograd_runs(const ConvHeader& h, const ConvShape& s) {
  const int64_t tiles = ((s.oh + 1) / 2) * ((s.ow + 1) / 2);
  return h.winograd() && h.nr != 0 && 3 * 16 * tiles <= 2 * 9 * s.oh * s.ow;
}

// Bytes of the transformed weight, behind the panels of the direct way: [panel][16][C][nr].
int64_t winograd_bytes(const ConvHeader& header);
// Panels [first, last) from w [oc][c][3][3].
void pack_winograd(void* packed, const float* w, int64_t first, int64_t last);

void run_winograd(const ConvCall& call);

}  // namespace pyops::cpu
