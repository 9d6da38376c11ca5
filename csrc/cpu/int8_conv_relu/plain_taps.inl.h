// What columns.inl.h and depthwise.inl.h need, in plain C++.

inline I32 bit_xor(I32 a, I32 b) { return a ^ b; }
template <bool kWeights>
inline void split(I32 taps, I32* to) {
  *to = taps;
}
inline I32 dot(I32 acc, I32 x_u8, I32 w_s8) {
  const uint32_t x = static_cast<uint32_t>(x_u8), w = static_cast<uint32_t>(w_s8);
  for (int i = 0; i < 32; i += 8) {
    const int32_t tap = static_cast<int8_t>(w >> i);
    acc = add(acc, static_cast<int32_t>((x >> i) & 0xff) * tap);
  }
  return acc;
}

// There are no wide blocks: these have no bodies.
template <class Codes = I32>
Codes load_pair(const uint8_t* p, const uint8_t* q);
template <int kRows, bool kHigh>
void interleave_half(const I32 (&codes)[4], I32* to);
template <class Codes>
I32 pack_half(const Codes* codes, int32_t zero);
template <bool kUnsigned>
I32 pack_bytes(I32 half, I32 high_half, int32_t low, int32_t high);
template <class Codes>
void store_codes_wide(uint8_t* p, Codes v);
template <int kHalf>
void store_half(uint8_t* p, I32 v);
