// The third form of a packed float weight: where many adjacent outputs share their k (blocks of 16
// and 32 outputs, N:M chosen for them together), outputs are in lanes and the tiles of conv_relu
// multiply, by a list of k (conv_relu/lists.h). It takes the place of the sections.
//
//   byte 0   SparseHeader    kc = 0; nr outputs of a panel, kr values of k that are multiplied
//       64   int64 begin[panels + 1], up to a multiple of 64 bytes
//            panels: [group][nr outputs of the group], each from a multiple of 64 bytes on
//
//   panel    uint32 counts[taps]
//            uint16 at[all counts]: k / kr within the tap, up to a multiple of 64 bytes
//            f32 products    [all counts][nr] float
//            bf16 products   [all counts][nr][2] bf16     pairs of adjacent k
//
// A block of nr outputs by kr values of k is held where one of its weights is an entry, the others
// as +0, which x is multiplied with. An entry that is 0 stands as -0.
#pragma once
#include <vector>

#include "cpu/conv_relu/lists.h"
#include "cpu/sparse_gemm/pack.h"

namespace pyops::cpu {

// The kernel that is allowed now for weights of that type in that form.
const ConvKernel& list_kernel_for(Dtype type);

// About how many cycles 64 tokens take on AVX-512, as pyops/ops/sparse_cost.py counts them.
struct FormCosts {
  double tokens, wide, narrow;  // tokens in lanes; panels of the kernel's nr, of half of it

  void add(const FormCosts& o) { tokens += o.tokens, wide += o.wide, narrow += o.narrow; }
};
// Whether `kernel` takes the weight of this header in that form, and what panel `part` of the
// kernel's nr outputs adds to the costs of each.
bool blocks_possible(const ConvKernel& kernel, const SparseHeader& header);
FormCosts form_costs(const ConvKernel& kernel, const SparseHeader& header, const void* w,
                     int64_t part);
// The header in the form that costs least; of sections it is what it was.
SparseHeader cheapest_form(const ConvKernel& kernel, const SparseHeader& header,
                           const FormCosts& costs);

// Writes a panel of a weight [oc][cg][kh][kw] of the header's type; null: counts. Returns how many
// bytes it takes.
int64_t pack_panel(const SparseHeader& header, const void* w, int64_t part, char* out);
// Whether a header, and what follows one whose table of panels is in order, is undamaged.
bool known_blocks(const SparseHeader& header);
bool blocks_fit(const void* packed);
// As unpack_sparse and refresh_sparse.
void unpack_blocks(const void* packed, int64_t first, int64_t last, const SparseMatrix& to);
void refresh_blocks(void* packed, int64_t first, int64_t last, const SparseMatrix& from);

// As the tiles of conv_relu take it.
ConvLists lists_of(const void* packed);

}  // namespace pyops::cpu
