// The row quantizer of int8_gemm.h on the vectors of one level. Include after epilogue.inl.h.

// As integers, the bits of floats from 0 up are in order, and, unsigned, those below 0 rise with
// their size. So two maxima from 0 on find the range of a row; NaN and Inf are the largest of all.
struct RangeVectors {
  I32 highest, lowest;  // lowest without a sign bit: no value below 0. When symmetric, unused.
};

template <bool kSymmetric>
inline void widen(RangeVectors* v, I32 bits) {
  if (kSymmetric) {
    v->highest = max(v->highest, bit_and(bits, set1_i32(0x7fffffff)));
  } else {
    v->highest = max(v->highest, bits);
    v->lowest = max_u32(v->lowest, bits);
  }
}

// The same on vectors of bf16 or f16.
template <bool kSymmetric>
inline void widen_16(RangeVectors* v, I32 bits) {
  if (kSymmetric) {
    v->highest = max_s16(v->highest, bit_and(bits, set1_i32(0x7fff7fff)));
  } else {
    v->highest = max_s16(v->highest, bits);
    v->lowest = max_u16(v->lowest, bits);
  }
}

// The float whose bf16 or f16 is the upper half of `bits`.
template <Dtype kType>
inline uint32_t float_bits_of(uint32_t bits) {
  if (kType == Dtype::f16) return float_bits(f16_to_float(static_cast<uint16_t>(bits >> 16)));
  return bits & 0xffff0000u;
}
inline uint32_t reduce_max_u32(I32 v) {
  constexpr uint32_t kSign = 0x80000000u;
  return static_cast<uint32_t>(reduce_max(add(v, set1_i32(static_cast<int32_t>(kSign))))) ^ kSign;
}

inline uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

struct RowRange {
  uint32_t absmax_bits;  // of the largest |x|
  float low, high;       // the range, stretched to hold 0; low is 0 when symmetric
};

template <Dtype kType, bool kSymmetric>
inline RowRange row_range(const QuantizeRow& row) {
  RangeVectors v = {set1_i32(0), set1_i32(0)};
  uint32_t highest = 0, lowest = 0;
  int64_t k = 0;
  if (kType == Dtype::f32) {
    const auto* x = static_cast<const float*>(row.x);
    for (; k + kLanes <= row.k; k += kLanes) widen<kSymmetric>(&v, load_bits(x + k));
  } else {
    const auto* x = static_cast<const uint16_t*>(row.x);
    for (; k + 2 * kLanes <= row.k; k += 2 * kLanes) widen_16<kSymmetric>(&v, load_bits(x + k));
    const I32 high = max_s16(v.highest, shift_left<16>(v.highest));
    highest = float_bits_of<kType>(static_cast<uint32_t>(reduce_max(high)));
    if (!kSymmetric) {
      const I32 low = max_u16(v.lowest, shift_left<16>(v.lowest));
      lowest = float_bits_of<kType>(reduce_max_u32(low));
    }
    v = {set1_i32(0), set1_i32(0)};
  }
  for (; k < row.k; k += kLanes) {
    const int lanes = static_cast<int>(min64(kLanes, row.k - k));
    widen<kSymmetric>(&v, as_i32(load_float(row.x, kType, k, lanes)));
  }
  highest = larger(highest, static_cast<uint32_t>(reduce_max(v.highest)));
  if (kSymmetric) return {highest, 0.0f, bits_float(highest)};
  lowest = larger(lowest, reduce_max_u32(v.lowest));
  const float low = lowest >> 31 ? bits_float(lowest) : 0.0f;
  return {larger(highest, lowest & 0x7fffffff), low, bits_float(highest)};
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
  if constexpr (kPackedVecs > 0 && kCodes != Codes::s16) {
    constexpr int kPacked = kPackedVecs * kLanes;
    for (; k + kPacked <= depth; k += kPacked) {
      I32 codes[kPackedVecs];
      PYOPS_UNROLL
      for (int j = 0; j < kPackedVecs; ++j) {
        codes[j] = to_i32(mul(load_float(x, kType, k + j * kLanes, kLanes), v.inverse));
      }
      store_codes<kCodes == Codes::u8>(static_cast<uint8_t*>(q) + k, codes, zero);
    }
  }
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
  switch (row.codes) {
    case Codes::s16: return write_codes<kType, Codes::s16, kSymmetric>(row, inverse, zero, lowest);
    case Codes::s8: return write_codes<kType, Codes::s8, kSymmetric>(row, inverse, zero, lowest);
    default: return write_codes<kType, Codes::u8, kSymmetric>(row, inverse, zero, lowest);
  }
}

// Symmetric codes are centred on that of 0; asymmetric ones run over all 256 values, as uint8 (also
// when widened) or shifted to int8.
template <Dtype kType, bool kSymmetric>
inline void quantize_row(const QuantizeRow& row) {
  constexpr float kTiny = 1.17549435e-38f;  // below it 1 / scale could overflow
  const RowRange range = row_range<kType, kSymmetric>(row);
  const bool finite = range.absmax_bits < 0x7f800000;
  float scale = kSymmetric ? range.high / 127.0f : range.high / 255.0f - range.low / 255.0f;
  scale = range.absmax_bits == 0 ? 1.0f : scale < kTiny ? kTiny : scale;
  const float inverse = 1.0f / scale;

  int32_t zero = row.codes == Codes::u8 ? 128 : 0;
  const int32_t lowest = row.codes == Codes::s8 ? -128 : 0;
  if (!kSymmetric) {
    const float at = finite ? -range.low * inverse : 0.0f;
    const int32_t rounded = round_to_even(at);
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
