// 8-lane vectors for the AVX2 levels (AVX2, F16C). See vec_avx512.inl.h for what each function
// does. Include inside a target region and an anonymous namespace.

constexpr int kLanes = 8;
constexpr int kFinishVecs = 2;
using F32 = __m256;
using I32 = __m256i;

inline F32 set1(float v) { return _mm256_set1_ps(v); }
inline I32 set1_i32(int32_t v) { return _mm256_set1_epi32(v); }
inline F32 as_f32(I32 v) { return _mm256_castsi256_ps(v); }
inline I32 as_i32(F32 v) { return _mm256_castps_si256(v); }

inline F32 add(F32 a, F32 b) { return _mm256_add_ps(a, b); }
inline F32 sub(F32 a, F32 b) { return _mm256_sub_ps(a, b); }
inline F32 mul(F32 a, F32 b) { return _mm256_mul_ps(a, b); }
inline F32 div(F32 a, F32 b) { return _mm256_div_ps(a, b); }
inline F32 max(F32 a, F32 b) { return _mm256_max_ps(a, b); }
inline F32 min(F32 a, F32 b) { return _mm256_min_ps(a, b); }
inline F32 max_or_nan(F32 a, F32 b) {
  return _mm256_blendv_ps(max(b, a), b, _mm256_cmp_ps(b, b, _CMP_UNORD_Q));
}
inline F32 abs(F32 a) { return _mm256_and_ps(a, as_f32(_mm256_set1_epi32(0x7fffffff))); }

inline I32 add(I32 a, I32 b) { return _mm256_add_epi32(a, b); }
inline I32 sub(I32 a, I32 b) { return _mm256_sub_epi32(a, b); }
inline I32 mul(I32 a, I32 b) { return _mm256_mullo_epi32(a, b); }
inline I32 max(I32 a, I32 b) { return _mm256_max_epi32(a, b); }
inline I32 min(I32 a, I32 b) { return _mm256_min_epi32(a, b); }
inline I32 bit_and(I32 a, I32 b) { return _mm256_and_si256(a, b); }
template <int kBits>
inline I32 shift_left(I32 a) {
  return _mm256_slli_epi32(a, kBits);
}
inline I32 max_u32(I32 a, I32 b) { return _mm256_max_epu32(a, b); }
inline I32 max_s16(I32 a, I32 b) { return _mm256_max_epi16(a, b); }
inline I32 max_u16(I32 a, I32 b) { return _mm256_max_epu16(a, b); }

inline F32 lookup_16(const float* table, I32 i) {
  const F32 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), i);
  const F32 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), i);
  return _mm256_blendv_ps(low, high, as_f32(_mm256_slli_epi32(i, 28)));
}
inline F32 to_f32(I32 a) { return _mm256_cvtepi32_ps(a); }
inline I32 to_i32(F32 a) { return _mm256_cvtps_epi32(a); }

inline int32_t reduce_max(I32 a) {
  __m128i v = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0x4e));
  v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0xb1));
  return _mm_cvtsi128_si32(v);
}
inline float reduce_max(F32 a) {
  __m128 v = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  v = _mm_max_ps(v, _mm_shuffle_ps(v, v, 0x4e));
  v = _mm_max_ps(v, _mm_shuffle_ps(v, v, 0xb1));
  return _mm_cvtss_f32(v);
}

// Part of a vector goes through a stack copy: only the last vector of a row comes here.
template <class T>
inline void copy_part(T* to, const T* from, int n) {
  for (int i = 0; i < n; ++i) to[i] = from[i];
}

inline F32 load(const float* p, int n = kLanes) {
  if (n == kLanes) return _mm256_loadu_ps(p);
  alignas(32) float part[kLanes] = {};
  copy_part(part, p, n);
  return _mm256_load_ps(part);
}
inline I32 load_bits(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline I32 load(const int32_t* p, int n = kLanes) {
  if (n == kLanes) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  alignas(32) int32_t part[kLanes] = {};
  copy_part(part, p, n);
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(part));
}
inline __m128i load_16(const uint16_t* p, int n) {
  if (n == kLanes) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  alignas(16) uint16_t part[kLanes] = {};
  copy_part(part, p, n);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(part));
}
inline F32 load_bf16(const uint16_t* p, int n = kLanes) {
  return as_f32(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16(p, n)), 16));
}
inline F32 load_f16(const uint16_t* p, int n = kLanes) { return _mm256_cvtph_ps(load_16(p, n)); }
inline __m128i load_8_bits(const uint8_t* p, int n) {
  if (n == kLanes) return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  alignas(16) uint8_t part[16] = {};
  copy_part(part, p, n);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(part));
}
inline I32 load_u8(const uint8_t* p, int n = kLanes) {
  return _mm256_cvtepu8_epi32(load_8_bits(p, n));
}
inline I32 load_s8(const uint8_t* p, int n = kLanes) {
  return _mm256_cvtepi8_epi32(load_8_bits(p, n));
}

inline void store(float* p, F32 v, int n = kLanes) {
  if (n == kLanes) return _mm256_storeu_ps(p, v);
  alignas(32) float part[kLanes];
  _mm256_store_ps(part, v);
  copy_part(p, part, n);
}
inline void store(int32_t* p, I32 v, int n = kLanes) {
  store(reinterpret_cast<float*>(p), as_f32(v), n);
}
inline void store_16_bits(uint16_t* p, __m128i v, int n) {
  if (n == kLanes) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v);
  alignas(16) uint16_t part[kLanes];
  _mm_store_si128(reinterpret_cast<__m128i*>(part), v);
  copy_part(p, part, n);
}
// The low 16 bits of each lane.
inline __m128i narrow_16(I32 v) {
  const I32 low = _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
  return _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
}
inline void store_bf16(uint16_t* p, F32 v, int n = kLanes) {
  const I32 bits = as_i32(v);
  const I32 odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const I32 rounded = add(add(bits, _mm256_set1_epi32(0x7fff)), odd);
  const I32 nan = as_i32(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const I32 high =
      _mm256_blendv_epi8(_mm256_srli_epi32(rounded, 16), _mm256_set1_epi32(0x7fc0), nan);
  store_16_bits(p, narrow_16(high), n);
}
inline void store_bf16_pair(uint16_t* p, F32 low, F32 high) {
  store_bf16(p, low);
  store_bf16(p + kLanes, high);
}
inline void store_f16(uint16_t* p, F32 v, int n = kLanes) {
  store_16_bits(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT), n);
}
inline void store_16(int16_t* p, I32 v, int n = kLanes) {
  store_16_bits(reinterpret_cast<uint16_t*>(p), narrow_16(v), n);
}
constexpr int kPackedVecs = 2;
template <bool kUnsigned>
inline __m128i pack_codes(const I32 (&codes)[2], int zero) {
  const __m256i zeros = _mm256_set1_epi16(static_cast<int16_t>(zero));
  const __m256i words = _mm256_adds_epi16(_mm256_packs_epi32(codes[0], codes[1]), zeros);
  const __m256i mixed =
      kUnsigned ? _mm256_packus_epi16(words, words) : _mm256_packs_epi16(words, words);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
  return _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(mixed, order));
}
template <bool kUnsigned>
inline void store_codes(uint8_t* p, const I32 (&codes)[2], int zero) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), pack_codes<kUnsigned>(codes, zero));
}
// The first `count` of them as u8 codes from low to high; they end in vector kVecs - 1.
template <int kVecs>
inline void store_codes(uint8_t* p, const I32 (&codes)[2], int zero, int low, int high, int count) {
  const __m128i lows = _mm_set1_epi8(static_cast<char>(low));
  const __m128i highs = _mm_set1_epi8(static_cast<char>(high));
  const __m128i all = pack_codes<true>(codes, zero);
  const __m128i packed = _mm_min_epu8(_mm_max_epu8(all, lows), highs);
  if (count == 2 * kLanes) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
  alignas(16) uint8_t part[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(part), packed);
  __builtin_memcpy(p, part, count);
}
inline void store_8(void* p, I32 v, int n = kLanes) {
  const __m128i low = _mm_and_si128(narrow_16(v), _mm_set1_epi16(0xff));
  const __m128i bytes = _mm_packus_epi16(low, low);
  if (n == kLanes) return _mm_storel_epi64(static_cast<__m128i*>(p), bytes);
  alignas(16) uint8_t part[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(part), bytes);
  copy_part(static_cast<uint8_t*>(p), part, n);
}
