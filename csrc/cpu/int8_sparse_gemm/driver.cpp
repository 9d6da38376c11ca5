// Products of codes with a sparse weight. The ops are those of dense weights: int8_gemm,
// int8_linear, int8_conv_relu and run_net come here when their weight is a sparse one.
#include "cpu/common/buffer.h"
#include "cpu/int8_conv_relu/dense.h"
#include "cpu/int8_gemm/operands.h"
#include "cpu/int8_gemm/rows.h"
#include "cpu/int8_sparse_gemm/call.h"
#include "cpu/sparse_gemm/run.h"

namespace pyops::cpu {
namespace {

// Rows of codes that are quantized before they are multiplied, so that they are still in L2.
constexpr int64_t kRowsBytes = 512 * 1024;

void multiply(const ConvShape& shape, const void* x, Dtype type, uint8_t padding,
              const void* packed, Epilogue e) {
  e.w_sum = sparse_sums(packed);
  e.zero_shift = type == Dtype::s8 ? 128 : 0;
  run_sparse({sparse_kernel_for(Dtype::s8), packed, shape, type, x, e, padding});
}

// Few rows have their own form.
bool by_panels(const void* packed, int64_t rows) {
  const SparseHeader& h = sparse_header(packed);
  return h.of_code_panels() && !(h.few && rows <= sparse_kernel_for(Dtype::s8).few);
}

}  // namespace

ConvShape rows_shape(int64_t m, int64_t k, int64_t n) {
  ConvShape s = {};
  s.n = m, s.c = k, s.oc = n;
  s.h = s.w = s.oh = s.ow = 1;
  s.kh = s.kw = s.stride_h = s.stride_w = s.dilation_h = s.dilation_w = s.groups = 1;
  return s;
}

Int8GemmKernel panel_kernel(const void* packed) {
  const SparseHeader& h = sparse_header(packed);
  const SparseGemmKernel& active = sparse_kernel_for(Dtype::s8);
  const SparsePanels& panels = active.panels;
  const bool quads = h.form == SparseForm::quads;
  Int8GemmKernel kernel = {};
  static_cast<KernelRow&>(kernel) = active;
  kernel.nr = quads ? panels.quads_nr : panels.windows_nr;
  kernel.mr = quads ? panels.quads_mr : panels.windows_mr;
  kernel.kr = kernel.tap_depth = panel_depth(h);
  kernel.codes = Codes::u8;
  kernel.block = quads                            ? panels.quads
                 : h.form == SparseForm::windows8 ? panels.windows8
                                                  : panels.windows16;
  kernel.quantize_row = active_kernel().quantize_row;
  kernel.sparse = true;
  return kernel;
}

void sparse_codes(const ConvShape& shape, const void* x, bool is_signed, uint8_t padding,
                  const void* packed, const Epilogue& epilogue) {
  if (shape.pixels() == 0) return;
  if (by_panels(packed, shape.pixels())) {
    const CodesImages images = {static_cast<const uint8_t*>(x), is_signed, padding};
    return dense_conv(shape, images, packed, epilogue);
  }
  multiply(shape, x, is_signed ? Dtype::s8 : Dtype::u8, padding, packed, epilogue);
}

void sparse_rows(const void* x, Dtype type, int64_t m, const void* packed,
                 const Epilogue& epilogue) {
  if (m > 0 && by_panels(packed, m)) {
    const SparseHeader& own = sparse_header(packed);
    Operand weight = {packed, own.oc, 0, epilogue};
    weight.epilogue.w_sum = sparse_sums(packed);
    return multiply_rows(panel_kernel(packed), x, type, m, own.cg, &weight, 1);
  }
  static thread_local Buffer codes_buffer, scale_buffer;
  const SparseHeader& h = sparse_header(packed);
  const int64_t k = h.cg, row_bytes = k * dtype_bytes(type);
  const int64_t tiles = max64(num_threads(), kRowsBytes / (h.nr * k));
  const int64_t chunk = min64(m, tiles * h.nr);
  auto* codes = static_cast<int8_t*>(codes_buffer.get(chunk * k));
  auto* scales = static_cast<float*>(scale_buffer.get(chunk * 4));
  const Int8GemmKernel& quantizer = active_kernel();
  for (int64_t m0 = 0; m0 < m; m0 += chunk) {
    const int64_t rows = min64(chunk, m - m0);
    const char* from = static_cast<const char*>(x) + m0 * row_bytes;
    parallel_range(rows, kSerialCodes / k, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        quantizer.quantize_row({from + r * row_bytes, type, k, k, true, Codes::s8, codes + r * k,
                                scales + r, nullptr});
      }
    });
    Epilogue e = epilogue;
    advance_rows(&e, m0);
    e.scale_a = scales;
    e.scale_a_stride = 1;
    multiply(rows_shape(rows, k, h.oc), codes, Dtype::s8, 0, packed, e);
  }
}

}  // namespace pyops::cpu
