// The row quantizer of int8_gemm.h on the vectors of one level. Include after epilogue.inl.h.

struct RowRange {
  int32_t absmax_bits;  // bits of the largest |x|; NaN and Inf are the largest of all
  float low, high;      // the range, stretched to hold 0
};

struct RangeVectors {
  I32 absmax_bits;
  F32 low, high;
};

template <bool kSymmetric>
inline void widen(RangeVectors* v, F32 x) {
  v->absmax_bits = max(v->absmax_bits, bit_and(as_i32(x), set1_i32(0x7fffffff)));
  if (kSymmetric) return;
  v->low = min(v->low, x);
  v->high = max(v->high, x);
}

template <Dtype kType, bool kSymmetric>
inline RowRange row_range(const QuantizeRow& row) {
  RangeVectors v = {set1_i32(0), set1(0.0f), set1(0.0f)};
  int64_t k = 0;
  for (; k + kLanes <= row.k; k += kLanes) {
    widen<kSymmetric>(&v, load_float(row.x, kType, k, kLanes));
  }
  if (k < row.k) {
    widen<kSymmetric>(&v, load_float(row.x, kType, k, static_cast<int>(row.k - k)));
  }
  return {reduce_max(v.absmax_bits), reduce_min(v.low), reduce_max(v.high)};
}

inline void fill_codes(const QuantizeRow& row, int64_t from, int64_t to, int32_t code) {
  if (row.codes == Codes::s16) {
    for (int64_t k = from; k < to; ++k)
      static_cast<int16_t*>(row.q)[k] = static_cast<int16_t>(code);
  } else {
    for (int64_t k = from; k < to; ++k) static_cast<int8_t*>(row.q)[k] = static_cast<int8_t>(code);
  }
}

struct CodeVectors {
  F32 inverse;
  I32 zero, low, high;
};

// rne(x * inverse) + zero, clamped unless symmetric: with scale = absmax / 127 no product passes
// 127 * (1 + 2^-22), which rounds to 127.
template <Codes kCodes, bool kSymmetric>
inline void write_vector(void* q, int64_t k, const CodeVectors& v, F32 x, int lanes) {
  I32 code = add(to_i32(mul(x, v.inverse)), v.zero);
  if (!kSymmetric) code = min(max(code, v.low), v.high);
  if (kCodes == Codes::s16) {
    store_16(static_cast<int16_t*>(q) + k, code, lanes);
  } else {
    store_8(static_cast<int8_t*>(q) + k, code, lanes);
  }
}

template <Dtype kType, Codes kCodes, bool kSymmetric>
inline void write_codes(const QuantizeRow& row, float inverse, int32_t zero, int32_t lowest) {
  const CodeVectors v = {set1(inverse), set1_i32(zero), set1_i32(lowest), set1_i32(lowest + 255)};
  const int64_t depth = row.k;  // copies that no store can alias
  const void* x = row.x;
  void* q = row.q;
  int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) {
    write_vector<kCodes, kSymmetric>(q, k, v, load_float(x, kType, k, kLanes), kLanes);
  }
  if (k < depth) {
    const int lanes = static_cast<int>(depth - k);
    write_vector<kCodes, kSymmetric>(q, k, v, load_float(x, kType, k, lanes), lanes);
  }
}

template <Dtype kType, bool kSymmetric>
inline void write_codes(const QuantizeRow& row, float inverse, int32_t zero, int32_t lowest) {
  // uint8 and int8 codes are the same bytes.
  if (row.codes == Codes::s16) {
    write_codes<kType, Codes::s16, kSymmetric>(row, inverse, zero, lowest);
  } else {
    write_codes<kType, Codes::s8, kSymmetric>(row, inverse, zero, lowest);
  }
}

// Symmetric codes are centred on that of 0; asymmetric ones run over all 256 values, as uint8 (also
// when widened) or shifted to int8.
template <Dtype kType, bool kSymmetric>
inline void quantize_row(const QuantizeRow& row) {
  constexpr float kTiny = 1.17549435e-38f;  // below it 1 / scale could overflow
  const RowRange range = row_range<kType, kSymmetric>(row);
  const bool finite = range.absmax_bits < 0x7f800000;
  float scale = kSymmetric ? bits_float(static_cast<uint32_t>(range.absmax_bits)) / 127.0f
                           : range.high / 255.0f - range.low / 255.0f;
  scale = range.absmax_bits == 0 ? 1.0f : scale < kTiny ? kTiny : scale;
  const float inverse = 1.0f / scale;

  int32_t zero = row.codes == Codes::u8 ? 128 : 0;
  const int32_t lowest = row.codes == Codes::s8 ? -128 : 0;
  if (!kSymmetric) {
    const float at = finite ? -range.low * inverse : 0.0f;
    const int32_t rounded = reduce_max(to_i32(set1(at)));  // all lanes are alike
    zero = lowest + (rounded > 255 ? 255 : rounded);
  }
  if (finite) {
    *row.scale = scale;
    write_codes<kType, kSymmetric>(row, inverse, zero, lowest);
  } else {
    *row.scale = bits_float(0x7fc00000);
    fill_codes(row, 0, row.k, zero);
  }
  fill_codes(row, row.k, row.k_padded, 0);
  if (row.zero_point) *row.zero_point = zero;
}

template <Dtype kType>
inline void quantize_row(const QuantizeRow& row) {
  if (row.symmetric) {
    quantize_row<kType, true>(row);
  } else {
    quantize_row<kType, false>(row);
  }
}

inline void quantize_row_impl(const QuantizeRow& row) {
  switch (row.x_type) {
    case Dtype::bf16: return quantize_row<Dtype::bf16>(row);
    case Dtype::f16: return quantize_row<Dtype::f16>(row);
    default: return quantize_row<Dtype::f32>(row);
  }
}
