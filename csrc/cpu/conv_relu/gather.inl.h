// A gathered tile, as floats. Include after epilogue.inl.h.

template <Dtype kType>
inline void gather_floats(const ConvGather& g) {
  for (int r = 0; r < g.pixels; ++r) {
    float* out = static_cast<float*>(g.out) + r * g.ld;
    for (int64_t s = 0; s < g.segments; ++s, out += g.depth) {
      const void* from = g.rows[s * g.pixels + r];
      int64_t d = 0;
      for (; d + kLanes <= g.depth; d += kLanes) {
        store(out + d, load_float(from, kType, g.offset + d, kLanes), kLanes);
      }
      if (d < g.depth) {
        const int lanes = static_cast<int>(g.depth - d);
        store(out + d, load_float(from, kType, g.offset + d, lanes), lanes);
      }
    }
    for (int64_t i = g.segments * g.depth; i < g.ld; ++i) *out++ = 0.0f;
  }
}

inline void gather_floats(const ConvGather& g) {
  if (g.type == Dtype::bf16) return gather_floats<Dtype::bf16>(g);
  gather_floats<Dtype::f32>(g);
}
