// The runs of a section, whatever its items are: bytes that a caller may have damaged. Include
// after items.inl.h, kTokens and sums_of.

// Up to `left` runs from `from` on, one after the other, as far as they are whole.
template <class Run, class Item>
class Runs {
 public:
  Runs(const SparseSection& t, const char* from, int64_t left) : end(from), of_(t), left_(left) {}

  // Goes on to the next run, whose items are fetched ahead.
  bool next() {
    if (left_ == 0 || of_.end - end < int64_t{sizeof(Run)}) return false;
    --left_;
    run = read<Run>(end);
    items = end += sizeof run;
    if ((of_.end - items) / int64_t{sizeof(Item)} < run.items) return false;
    end += run.items * sizeof(Item);
    fetch_ahead(items, end);
    for (const uint16_t row : run.rows) rows_ |= uint64_t{row < kSpareRow} << (row & 63);
    return true;
  }
  // Of the section, a bit for each that a run was of.
  uint64_t rows() const { return rows_; }

  Run run;
  const char *items, *end;

 private:
  const SparseSection& of_;
  int64_t left_;
  uint64_t rows_ = 0;
};

// Rows that damaged bytes leave out would keep the sums of another call.
inline void clear_missing(const SparseSection& t, uint64_t done) {
  if ((~done & (~uint64_t{0} >> (kSectionRows - t.rows))) == 0) return;
  for (int row = 0; row < t.rows; ++row) {
    if ((done >> row & 1) != 0) continue;
    for (int lane = 0; lane < kTokens; ++lane) sums_of(t, row)[lane] = 0;
  }
}
