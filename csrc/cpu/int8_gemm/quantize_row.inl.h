// The row quantizer of int8_gemm.h on the vectors of one level. Include after epilogue.inl.h.

struct RowRange {
  int32_t absmax_bits;  // bits of the largest |x|; NaN and Inf are the largest of all
  float low, high;      // the range, stretched to hold 0
};

inline RowRange row_range(const QuantizeRow& row) {
  I32 absmax = set1_i32(0);
  F32 low = set1(0.0f), high = set1(0.0f);
  const I32 magnitude = set1_i32(0x7fffffff);
  for (int64_t k = 0; k < row.k; k += kLanes) {
    const int lanes = row.k - k < kLanes ? static_cast<int>(row.k - k) : kLanes;
    const F32 x = load_float(row.x, row.x_type, k, lanes);
    absmax = max(absmax, bit_and(as_i32(x), magnitude));
    if (!row.symmetric) {
      low = min(low, x);
      high = max(high, x);
    }
  }
  return {reduce_max(absmax), reduce_min(low), reduce_max(high)};
}

inline void fill_codes(const QuantizeRow& row, int64_t from, int64_t to, int32_t code) {
  if (row.codes == Codes::s16) {
    for (int64_t k = from; k < to; ++k)
      static_cast<int16_t*>(row.q)[k] = static_cast<int16_t>(code);
  } else {
    for (int64_t k = from; k < to; ++k) static_cast<int8_t*>(row.q)[k] = static_cast<int8_t>(code);
  }
}

// codes = clamp(rne(x * inverse) + zero, lowest, lowest + 255)
template <Codes kCodes>
inline void write_codes(const QuantizeRow& row, float inverse, int32_t zero, int32_t lowest) {
  const F32 inv = set1(inverse);
  const I32 z = set1_i32(zero), low = set1_i32(lowest), high = set1_i32(lowest + 255);
  for (int64_t k = 0; k < row.k; k += kLanes) {
    const int lanes = row.k - k < kLanes ? static_cast<int>(row.k - k) : kLanes;
    const F32 x = load_float(row.x, row.x_type, k, lanes);
    const I32 code = min(max(add(to_i32(mul(x, inv)), z), low), high);
    if (kCodes == Codes::s16) {
      store_16(static_cast<int16_t*>(row.q) + k, code, lanes);
    } else {
      store_8(static_cast<int8_t*>(row.q) + k, code, lanes);
    }
  }
}

// Symmetric int8 codes are centred on 0, and asymmetric uint8 codes start there; `shift` takes
// either to the form that the kernel wants.
inline void quantize_row_impl(const QuantizeRow& row) {
  constexpr float kTiny = 1.17549435e-38f;  // below it 1 / scale could overflow
  const RowRange range = row_range(row);
  const bool finite = range.absmax_bits < 0x7f800000;
  const bool zero_row = range.absmax_bits == 0;
  float scale = row.symmetric ? bits_float(static_cast<uint32_t>(range.absmax_bits)) / 127.0f
                              : range.high / 255.0f - range.low / 255.0f;
  scale = zero_row ? 1.0f : scale < kTiny ? kTiny : scale;
  const float inverse = 1.0f / scale;

  const int32_t first_code = row.codes == Codes::u8 ? 0 : -128;
  int32_t zero = first_code + 128;  // the code of 0, symmetric
  int32_t lowest = first_code;
  if (!row.symmetric) {
    // Asymmetric codes run over all 256 values; widened ones stay those of uint8.
    lowest = row.codes == Codes::s8 ? -128 : 0;
    const float at = finite ? -range.low * inverse : 0.0f;
    const int32_t rounded = reduce_max(to_i32(set1(at)));  // all lanes are alike
    zero = lowest + (rounded > 255 ? 255 : rounded);
  }
  if (finite) {
    *row.scale = scale;
    switch (row.codes) {
      case Codes::s16: write_codes<Codes::s16>(row, inverse, zero, lowest); break;
      case Codes::u8: write_codes<Codes::u8>(row, inverse, zero, lowest); break;
      default: write_codes<Codes::s8>(row, inverse, zero, lowest); break;
    }
  } else {
    *row.scale = bits_float(0x7fc00000);
    fill_codes(row, 0, row.k, zero);
  }
  fill_codes(row, row.k, row.k_padded, 0);
  if (row.zero_point) *row.zero_point = zero;
}
