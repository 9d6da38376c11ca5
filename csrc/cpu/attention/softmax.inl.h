// From scores to weights, some rows of one chunk of keys at a time.
//
//   no mask:  p = 2^(s c - m c), c = scale log2(e), m = max s      needs 0 < scale, c finite
//   mask:     x = s scale + mask, p = 2^((x - m) log2(e)), m = max x
//
// m is the maximum so far. The common error of m c cancels in the division by the sum.

constexpr float kLog2e = 1.44269504f;
constexpr float kInfinity = __builtin_inff();

// Weights as floats, in place of the scores.
struct FloatWeights {
  static constexpr int kVecs = 1, kTerms = 6;
  static void put(float* row, int64_t j, const F32 (&e)[1]) { store(row + j, e[0]); }
};

// A row of scores and what is known of it. The scores become weights in place.
struct Row {
  float* scores;
  int64_t n;         // the first n are scores, the rest counts as -infinity
  float *max, *sum;  // so far; -infinity and 0 at first
  float rescale;     // what earlier sums are to be multiplied by
};

// The rest of the row, up to `whole`.
inline void close_row(const Row& row, int64_t whole) {
  for (int64_t j = row.n / kLanes * kLanes; j < whole; j += kLanes) {
    const int left = static_cast<int>(max64(0, row.n - j));
    const F32 x = load(row.scores + j);
    store(row.scores + j, left >= kLanes ? x : keep_first(x, left, set1(-kInfinity)));
  }
}

// x = s scale + mask
inline void add_mask(const Row& row, const float* mask, float scale) {
  for (int64_t j = 0; j < row.n; j += kLanes) {
    const int left = static_cast<int>(min64(kLanes, row.n - j));
    store(row.scores + j, fma(load(row.scores + j), set1(scale), load(mask + j, left)));
  }
}

// 2^t of one number, as the vectors compute it.
inline float exp2_of(float t) { return reduce_max(exp2<6>(set1(t))); }

// The maximum with these scores in *max, what earlier sums are multiplied by in rescale. Returns
// the m of the formulas above: 0 where all is masked, so that every weight becomes 0.
inline float update_max(Row* row, float found, float factor) {
  const float old = *row->max, best = found > old ? found : old;
  const float base = best == -kInfinity ? 0.0f : best;
  row->rescale = best == old || *row->sum == 0.0f ? 1.0f : exp2_of((old - base) * factor);
  *row->max = best;
  return base;
}

// Several rows side by side: one alone waits for its own maximum and sum. Scores up to `whole`
// become weights, followed by zeros up to `padded`.
template <bool kMasked, class Weights, int Rows>
void softmax(Row* rows, int64_t whole, int64_t padded, float factor) {
  constexpr int64_t kStep = kLanes * Weights::kVecs;
  F32 best[Rows], shift[Rows], sums[Rows];
  PYOPS_UNROLL
  for (int r = 0; r < Rows; ++r) best[r] = set1(-kInfinity), sums[r] = set1(0.0f);
  for (int64_t j = 0; j < whole; j += kLanes) {
    PYOPS_UNROLL
    for (int r = 0; r < Rows; ++r) best[r] = max(load(rows[r].scores + j), best[r]);
  }
  PYOPS_UNROLL
  for (int r = 0; r < Rows; ++r) {
    const float base = update_max(rows + r, reduce_max(best[r]), factor);
    shift[r] = set1(kMasked ? base : -base * factor);
  }
  for (int64_t j = 0; j < whole; j += kStep) {
    PYOPS_UNROLL
    for (int r = 0; r < Rows; ++r) {
      F32 e[Weights::kVecs];
      PYOPS_UNROLL
      for (int v = 0; v < Weights::kVecs; ++v) {
        const F32 x = load(rows[r].scores + j + v * kLanes);
        e[v] = exp2<Weights::kTerms>(kMasked ? mul(sub(x, shift[r]), set1(factor))
                                             : fma(x, set1(factor), shift[r]));
        sums[r] = add(sums[r], e[v]);
      }
      Weights::put(rows[r].scores, j, e);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    F32 zeros[Weights::kVecs] = {};
    for (int64_t j = whole; j < padded; j += kStep) Weights::put(rows[r].scores, j, zeros);
    *rows[r].sum = *rows[r].sum * rows[r].rescale + reduce_add(sums[r]);
  }
}
