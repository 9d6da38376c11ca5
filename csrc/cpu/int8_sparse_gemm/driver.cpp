// Products of codes with a sparse weight. The ops are those of dense weights: int8_gemm,
// int8_linear, int8_conv_relu and run_net come here when their weight is a sparse one.
#include "cpu/common/buffer.h"
#include "cpu/int8_gemm/operands.h"
#include "cpu/int8_sparse_gemm/call.h"
#include "cpu/sparse_gemm/run.h"

namespace pyops::cpu {
namespace {

// Rows of codes that are quantized before they are multiplied, so that they are still in L2.
constexpr int64_t kRowsBytes = 512 * 1024;

void multiply(const ConvShape& shape, const void* x, Dtype type, uint8_t padding,
              const void* packed, Epilogue e) {
  if (shape.pixels() == 0) return;
  e.w_sum = sparse_sums(packed);
  e.zero_shift = type == Dtype::s8 ? 128 : 0;
  run_sparse({sparse_kernel_for(Dtype::s8), packed, shape, type, x, e, padding});
}

}  // namespace

ConvShape rows_shape(int64_t m, int64_t k, int64_t n) {
  ConvShape s = {};
  s.n = m, s.c = k, s.oc = n;
  s.h = s.w = s.oh = s.ow = 1;
  s.kh = s.kw = s.stride_h = s.stride_w = s.dilation_h = s.dilation_w = s.groups = 1;
  return s;
}

void sparse_codes(const ConvShape& shape, const void* x, bool is_signed, uint8_t padding,
                  const void* packed, const Epilogue& epilogue) {
  multiply(shape, x, is_signed ? Dtype::s8 : Dtype::u8, padding, packed, epilogue);
}

void sparse_rows(const void* x, Dtype type, int64_t m, const void* packed,
                 const Epilogue& epilogue) {
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
