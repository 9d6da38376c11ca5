// One section, by as many vectors of tokens as there are. Include after add_pairs<V> and
// add_quads<V>, of V vectors: from where to where the runs of a section stand, and of which rows
// they are.

template <int V = kVecs>
inline void multiply_section(const SparseSection& t) {
  if constexpr (V > 1) {
    if (t.tokens <= (V - 1) * kLanes) return multiply_section<V - 1>(t);
  }
  const auto counts = read<SparseCounts>(t.section);
  uint64_t done = 0;
  const char* p = add_pairs<V>(t, t.section + sizeof counts, counts.pairs, &done);
  add_quads<V>(t, p, counts.quads, &done);
  if (t.first) clear_missing(t, done);
}
