// Rows of a section that damaged bytes leave out: they would keep the sums of another call. Include
// after kTokens and sums_of.

// A row's bit among those of the section.
inline uint64_t bit_of(int row) { return uint64_t{row < kSpareRow} << (row & 63); }

inline void clear_missing(const SparseSection& t, uint64_t done) {
  if ((~done & (~uint64_t{0} >> (kSectionRows - t.rows))) == 0) return;
  for (int row = 0; row < t.rows; ++row) {
    if ((done >> row & 1) != 0) continue;
    for (int lane = 0; lane < kTokens; ++lane) sums_of(t, row)[lane] = 0;
  }
}
