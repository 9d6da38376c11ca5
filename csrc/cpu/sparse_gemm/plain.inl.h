// Weights of an item in plain C++. Include before lanes.inl.h.

struct Four {
  float w[4];
};

inline Four load_four(const char* p) {
  Four four;
  __builtin_memcpy(&four, p, sizeof four);
  return four;
}
template <int kWhich>
inline F32 spread(const Four& four) {
  return four.w[kWhich];
}
