// For levels without prefetches: what int8_gemm/ahead.inl.h provides.

struct Ahead {};
inline Ahead ahead_of(const int8_t*, int64_t, int64_t, int64_t, int64_t) { return {}; }
template <int kBytes>
inline void prefetch(Ahead*) {}
