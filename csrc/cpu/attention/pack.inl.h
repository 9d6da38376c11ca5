// Brings k, v and q into the layout of pack.h. The file that includes this says, as Values, how
// elements become dwords (values.inl.h). Needs kNr, kPair.

template <class Values>
const typename Values::T* token(const void* base, const int64_t (&stride)[3], int64_t batch,
                                int64_t head, int64_t at) {
  return static_cast<const typename Values::T*>(base) + batch * stride[0] + head * stride[1] +
         at * stride[2];
}

// A token is a few lines, often pages away from the next one: hardware does not see it coming.
constexpr int kTokensAhead = 16;

template <class T>
inline void prefetch_elements(const T* p, int64_t n) {
  constexpr int64_t kElements = 64 / sizeof(T);
  for (int64_t i = 0; i < n; i += kElements) __builtin_prefetch(p + i);
}

// kLanes keys from `key` on, transposed, into the column `to` of a panel.
template <class Values>
inline void pack_keys(const AttentionProblem& p, const typename Values::T* k, int64_t key,
                      int64_t depth, float* to) {
  constexpr int64_t kElements = kLanes * kPair;
  for (int64_t d = 0; d < depth; d += kLanes) {
    const int64_t n = max64(0, min64(kElements, p.depth - d * kPair));
    const auto* from = k + d * kPair;
    F32 rows[kLanes];
    if (n == kElements && key + kLanes <= p.keys) {
      PYOPS_UNROLL
      for (int i = 0; i < kLanes; ++i) rows[i] = Values::depth(from + i * p.k_stride[2], kElements);
    } else {
      for (int i = 0; i < kLanes; ++i) {
        rows[i] = key + i < p.keys ? Values::depth(from + i * p.k_stride[2], n) : set1(0.0f);
      }
    }
    transpose(rows);
    if (d + kLanes <= depth) {
      PYOPS_UNROLL
      for (int i = 0; i < kLanes; ++i) store(to + (d + i) * kNr, rows[i]);
    } else {
      for (int64_t i = 0; d + i < depth; ++i) store(to + (d + i) * kNr, rows[i]);
    }
  }
}

template <class Values>
void pack_k(const AttentionProblem& p, int64_t batch, int64_t head, const Scratch& at, float* to) {
  for (int64_t key = 0; key < p.keys; key += kLanes) {
    const int64_t panel = key / kNr, column = key % kNr;
    const auto* k = token<Values>(p.k, p.k_stride, batch, head, key);
    for (int i = 0; i < kLanes; ++i) {
      prefetch_elements(k + (i + kTokensAhead) * p.k_stride[2], p.depth);
    }
    pack_keys<Values>(p, k, key, at.k_depth, to + panel * at.k_depth * kNr + column);
  }
}

template <class Values>
void pack_v(const AttentionProblem& p, int64_t batch, int64_t head, const Scratch& at, float* to) {
  for (int64_t key = 0; key < round_up(p.keys, kWeightStep); key += kPair, to += at.v_depth) {
    const auto* a = token<Values>(p.v, p.v_stride, batch, head, min64(key, p.keys));
    for (int i = 0; i < kPair; ++i) {
      prefetch_elements(a + (i + kTokensAhead) * p.v_stride[2], p.depth);
    }
    const bool second = kPair > 1 && key + 1 < p.keys;
    int64_t d = 0;
    if (key + kPair <= p.keys) {
      for (; d + kLanes <= p.depth; d += kLanes) {
        store(to + d, Values::keys(a + d, a + d + p.v_stride[2], kLanes));
      }
    }
    for (; d < at.v_depth; d += kLanes) {
      const int n = key < p.keys ? static_cast<int>(min64(kLanes, p.depth - d)) : 0;
      store(to + d,
            n > 0 ? Values::keys(a + d, second ? a + d + p.v_stride[2] : nullptr, n) : set1(0.0f));
    }
  }
}

// Which query of which head a row of a kv head is.
struct Query {
  int64_t head, token;
};
inline Query query_of(const AttentionProblem& p, int64_t kv_head, int64_t row) {
  return {kv_head * (p.heads / p.kv_heads) + row / p.queries, row % p.queries};
}
inline void step(const AttentionProblem& p, Query* row) {
  if (++row->token == p.queries) row->token = 0, ++row->head;
}

// Rows of q, and zeros up to a whole tile of them.
template <class Values>
void pack_q(const AttentionProblem& p, int64_t batch, Query row, int64_t rows, int64_t depth,
            float* to) {
  for (int64_t r = 0; r < rows; ++r, to += depth, step(p, &row)) {
    const auto* q = token<Values>(p.q, p.q_stride, batch, row.head, row.token);
    prefetch_elements(q + kTokensAhead * p.q_stride[2], p.depth);
    int64_t d = 0;
    for (; (d + kLanes) * kPair <= p.depth; d += kLanes) {
      store(to + d, Values::depth(q + d * kPair, kLanes * kPair));
    }
    for (; d < depth; d += kLanes) {
      const int64_t n = max64(0, p.depth - d * kPair);
      const int lanes = static_cast<int>(min64(kLanes, depth - d));
      store(to + d, n > 0 ? Values::depth(q + d * kPair, n) : set1(0.0f), lanes);
    }
  }
  const int64_t rest = (round_up(rows, kRowStep) - rows) * depth;
  for (int64_t i = 0; i < rest; ++i) to[i] = 0.0f;
}
