// Int8 weights with their outputs in lanes: forms of a sparse weight (sparse_gemm/pack.h) for zeros
// that stand in blocks, and for N:M of each output by itself. What multiplies them are tiles of the
// dense product (int8_gemm/dot_tiles.inl.h) that skip: rows of x stay as they are, sums stay in
// registers over all of K.
//
// A section, 64 outputs of a group, begins at a multiple of 64 bytes. stored: its outputs, or those
// of one of its panels, up to a multiple of 16.
//
//   quads      panels of 32 outputs, of four adjacent k at a time those in which one of the outputs
//              is not 0
//                uint32 count[panel][segment]
//                uint16 at[panel][segment][count]: k / 4, in the segment; up to 64 bytes
//                int8 [panel][segment][count][stored][4]
//              A segment is a tap, where 4 divides its channels, or else all of K.
//   windows8,  panels of 32 outputs, each of which has at most four entries in 8 or 16 adjacent k
//   windows16    [panel][window] int8 w[stored][4], uint8 at[stored][4]: k in the window
#pragma once
#include "cpu/sparse_gemm/pack.h"

namespace pyops::cpu {

constexpr int kPanelCols = 32;

// How many bytes of weights either form takes, in a section or more; less than 0: it cannot hold
// them.
struct PanelCounts {
  int64_t quads = 0, windows8 = 0, windows16 = 0;

  PanelCounts& operator+=(const PanelCounts& other) {
    const auto sum = [](int64_t a, int64_t b) { return a < 0 || b < 0 ? -1 : a + b; };
    quads += other.quads;
    windows8 = sum(windows8, other.windows8);
    windows16 = sum(windows16, other.windows16);
    return *this;
  }
};

// Of section `index`, which counts through all groups.
PanelCounts count_panels(const SparseHeader& header, const int8_t* w, int64_t index);
// Whether panels take less time than entries of so many bytes; then the header gets their form.
bool choose_panels(const SparseGemmKernel& kernel, const PanelCounts& counts, int64_t bytes,
                   SparseHeader* header);
// As pack_section.
int64_t pack_panels(const SparseHeader& header, const int8_t* w, int64_t part, char* out);
void unpack_panels(const void* packed, int64_t first, int64_t last, const SparseMatrix& to);

// Values of k that its panels have together: what has to divide the depth of taps.
inline int panel_depth(const SparseHeader& h) {
  return h.form == SparseForm::quads ? 4 : h.form == SparseForm::windows8 ? 8 : 16;
}
// w, and what it holds, for a block that begins at column n0 of a group.
void find_panel(const void* packed, int64_t group, int64_t n0, Int8GemmBlock* block);

}  // namespace pyops::cpu
