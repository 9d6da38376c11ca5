// 16-lane vectors for the AVX-512 levels (F, BW, VL, DQ). Include inside a target region and an
// anonymous namespace; a level with AVX512-BF16 defines PYOPS_AVX512_BF16 first.
//
// Loads and stores with a count touch n lanes: the others are read as 0, and never written.
// load_bits: a whole vector, whatever its values are.
// load_u8, load_s8: 8-bit codes, widened.
// lookup_16(table, i): table[i & 15] of a 64-byte aligned table.
// max_s16, max_u16: of the signed or unsigned halves of each lane.
// max(a, b) is a > b ? a : b and min(a, b) is a < b ? a : b, so a NaN in b comes through.

constexpr int kLanes = 16;
constexpr int kFinishVecs = 4;  // vectors of a row that the epilogue keeps operands of in registers
using F32 = __m512;
using I32 = __m512i;

inline __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }

inline F32 set1(float v) { return _mm512_set1_ps(v); }
inline I32 set1_i32(int32_t v) { return _mm512_set1_epi32(v); }
inline F32 as_f32(I32 v) { return _mm512_castsi512_ps(v); }
inline I32 as_i32(F32 v) { return _mm512_castps_si512(v); }

inline F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
inline F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
inline F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
inline F32 div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
inline F32 max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
inline F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
// The greater one, a if they are equal; NaN if one is. (max_ps gives its second operand on where
// they are equal or one is NaN.)
inline F32 max_or_nan(F32 a, F32 b) {
  return _mm512_mask_max_ps(b, _mm512_cmp_ps_mask(b, b, _CMP_ORD_Q), b, a);
}
inline F32 abs(F32 a) { return as_f32(_mm512_and_si512(as_i32(a), _mm512_set1_epi32(0x7fffffff))); }

inline I32 add(I32 a, I32 b) { return _mm512_add_epi32(a, b); }
inline I32 sub(I32 a, I32 b) { return _mm512_sub_epi32(a, b); }
inline I32 mul(I32 a, I32 b) { return _mm512_mullo_epi32(a, b); }
inline I32 max(I32 a, I32 b) { return _mm512_max_epi32(a, b); }
inline I32 min(I32 a, I32 b) { return _mm512_min_epi32(a, b); }
inline I32 bit_and(I32 a, I32 b) { return _mm512_and_si512(a, b); }
template <int kBits>
inline I32 shift_left(I32 a) {
  return _mm512_slli_epi32(a, kBits);
}
inline I32 max_u32(I32 a, I32 b) { return _mm512_max_epu32(a, b); }
inline I32 max_s16(I32 a, I32 b) { return _mm512_max_epi16(a, b); }
inline I32 max_u16(I32 a, I32 b) { return _mm512_max_epu16(a, b); }

inline F32 lookup_16(const float* table, I32 i) {
  return _mm512_permutexvar_ps(i, _mm512_load_ps(table));
}
inline F32 to_f32(I32 a) { return _mm512_cvtepi32_ps(a); }
inline I32 to_i32(F32 a) { return _mm512_cvtps_epi32(a); }  // to nearest even

inline int32_t reduce_max(I32 a) { return _mm512_reduce_max_epi32(a); }
inline float reduce_max(F32 a) { return _mm512_reduce_max_ps(a); }

inline F32 load(const float* p) { return _mm512_loadu_ps(p); }
inline F32 load(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
inline I32 load_bits(const void* p) { return _mm512_loadu_si512(p); }
inline I32 load(const int32_t* p) { return _mm512_loadu_si512(p); }
inline I32 load(const int32_t* p, int n) { return _mm512_maskz_loadu_epi32(first(n), p); }
inline F32 load_bf16(const uint16_t* p, int n = kLanes) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), p));
  return as_f32(_mm512_slli_epi32(bits, 16));
}
inline F32 load_f16(const uint16_t* p, int n = kLanes) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p));
}
inline I32 load_u8(const uint8_t* p, int n = kLanes) {
  return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first(n), p));
}
inline I32 load_s8(const uint8_t* p, int n = kLanes) {
  return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(n), p));
}
inline void store(float* p, F32 v, int n = kLanes) { _mm512_mask_storeu_ps(p, first(n), v); }
inline void store(int32_t* p, I32 v, int n = kLanes) { _mm512_mask_storeu_epi32(p, first(n), v); }
// A quiet NaN, a denormal, a signaling NaN: what vcvtneps2bf16 rounds in its own way.
constexpr int kOdd = 1 | 32 | 128;
inline void store_bf16(uint16_t* p, F32 v, int n = kLanes) {
#ifdef PYOPS_AVX512_BF16
  // vcvtneps2bf16 takes denormals for 0, and the payload of a NaN along: they go the long way.
  if (_mm512_fpclass_ps_mask(v, kOdd) == 0) {
    const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
    return _mm256_mask_storeu_epi16(p, first(n), rounded);
  }
#endif
  const I32 bits = as_i32(v);
  const I32 odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  I32 rounded = add(add(bits, _mm512_set1_epi32(0x7fff)), odd);
  rounded = _mm512_srli_epi32(rounded, 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0));
  _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtepi32_epi16(rounded));
}
// Two vectors in a row.
inline void store_bf16_pair(uint16_t* p, F32 low, F32 high) {
#ifdef PYOPS_AVX512_BF16
  const __mmask16 odd = _mm512_fpclass_ps_mask(low, kOdd) | _mm512_fpclass_ps_mask(high, kOdd);
  if (odd == 0) {
    const auto rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
    return _mm512_storeu_si512(p, rounded);
  }
#endif
  store_bf16(p, low);
  store_bf16(p + kLanes, high);
}
inline void store_f16(uint16_t* p, F32 v, int n = kLanes) {
  _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
// The low byte of each lane. (vpmovdb to memory is microcoded on some CPUs: store a register.)
inline void store_8(void* p, I32 v, int n = kLanes) {
  _mm_mask_storeu_epi8(p, first(n), _mm512_cvtepi32_epi8(v));
}
// Four vectors of codes, each plus zero (of at most 9 bits) and clamped to u8 or s8, in a row.
constexpr int kPackedVecs = 4;
template <bool kUnsigned>
inline I32 pack_codes(const I32 (&codes)[4], int zero) {
  const __m512i zeros = _mm512_set1_epi16(static_cast<int16_t>(zero));
  const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(codes[0], codes[1]), zeros);
  const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(codes[2], codes[3]), zeros);
  // Each 128-bit lane holds four codes of each vector.
  const __m512i mixed = kUnsigned ? _mm512_packus_epi16(low, high) : _mm512_packs_epi16(low, high);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, mixed);
}
template <bool kUnsigned>
inline void store_codes(uint8_t* p, const I32 (&codes)[4], int zero) {
  _mm512_storeu_si512(p, pack_codes<kUnsigned>(codes, zero));
}
// The first `count` of them as u8 codes from low to high; they end in vector kVecs - 1.
template <int kVecs>
inline void store_codes(uint8_t* p, const I32 (&codes)[4], int zero, int low, int high, int count) {
  const __m512i lows = _mm512_set1_epi8(static_cast<char>(low));
  const __m512i highs = _mm512_set1_epi8(static_cast<char>(high));
  const __m512i all = pack_codes<true>(codes, zero);
  const __m512i packed = _mm512_min_epu8(_mm512_max_epu8(all, lows), highs);
  if (count < kVecs * kLanes) {
    _mm512_mask_storeu_epi8(p, (uint64_t{1} << count) - 1, packed);
  } else if constexpr (kVecs == 4) {
    _mm512_storeu_si512(p, packed);
  } else {
    const __m256i low = _mm512_castsi512_si256(packed);
    auto* to = reinterpret_cast<__m128i*>(p);
    if (kVecs == 1) _mm_storeu_si128(to, _mm256_castsi256_si128(low));
    if (kVecs > 1) _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), low);
    if (kVecs == 3) _mm_storeu_si128(to + 2, _mm512_extracti32x4_epi32(packed, 2));
  }
}
inline void store_16(int16_t* p, I32 v, int n = kLanes) {
  _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtepi32_epi16(v));
}
