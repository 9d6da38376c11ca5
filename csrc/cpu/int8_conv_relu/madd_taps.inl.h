// Taps 0 and 2, and taps 1 and 3, as 16-bit words: vpmaddwd is exact. With the shifts and `dot16`
// of the level.

constexpr int kParts = 2;

template <bool kWeights>
inline void split(I32 taps, I32* to) {
  to[0] = kWeights ? shift_right_s16(shift_left_s16(taps)) : bit_and(taps, set1_i32(0x00ff00ff));
  to[1] = kWeights ? shift_right_s16(taps) : shift_right_u16(taps);
}
inline I32 dot(I32 acc, I32 x, I32 w) { return add(acc, madd(x, w)); }
