// Blocks of rows through scores, softmax and values. The file that includes this has defined
//
//   kMr, kNr, kPair, kDepthStep    as in pack.h
//   kRowStep, kWeightStep          rows of q, and keys of weights, that the products below read
//   Weights                        how weights are stored (softmax.inl.h)
//   scores(q, k, depth, rows, keys, to, stride)                to[r][j] = q[r] . k[j], packed
//   values(weights, stride, v, keys, depth, rows, add, acc)    acc[r][:] (+)= weights[r] . v
//
// and includes values.inl.h, pack.inl.h, softmax.inl.h and direct.inl.h before it.

constexpr TileShape kShape = {kMr, kNr, kLanes, kPair, kDepthStep};

// A thread's place in the problem and in its scratch memory.
struct Work {
  const AttentionProblem& p;
  Scratch at;
  char* scratch;
  int64_t batch, kv_head, first, rows;  // of the block
  Query query;                          // of its first row

  float* place(int64_t offset) const { return reinterpret_cast<float*>(scratch + offset); }
};

// A row of the mask as floats, from key `from` on: as it stands, or converted once for all rows of
// the block that share it; *held says what of it has been converted.
const float* mask_row(const Work& w, const Query& row, int64_t from, int64_t n, const void** held) {
  const AttentionProblem& p = w.p;
  const int64_t* stride = p.mask_stride;
  const int64_t at =
      w.batch * stride[0] + row.head * stride[1] + row.token * stride[2] + from * stride[3];
  if (p.mask_type == MaskType::f32 && stride[3] == 1) return static_cast<const float*>(p.mask) + at;
  const int64_t bytes = p.mask_type == MaskType::f32 ? 4 : p.mask_type == MaskType::boolean ? 1 : 2;
  const char* source = static_cast<const char*>(p.mask) + at * bytes;
  float* to = w.place(w.at.mask);
  if (source == *held) return to;
  *held = source;
  const int64_t step = stride[3];
  const auto* halves = reinterpret_cast<const uint16_t*>(source);
  for (int64_t j = 0; j < n; ++j) {
    switch (p.mask_type) {
      case MaskType::f32: to[j] = reinterpret_cast<const float*>(source)[j * step]; break;
      case MaskType::bf16: to[j] = bf16_to_float(halves[j * step]); break;
      case MaskType::f16: to[j] = f16_to_float(halves[j * step]); break;
      default: to[j] = source[j * step] ? 0.0f : -kInfinity;
    }
  }
  return to;
}

// How many of the n keys from `from` on a query sees.
inline int64_t seen(const AttentionProblem& p, const Query& row, int64_t from, int64_t n) {
  return p.causal ? max64(0, min64(n, row.token + 1 - from)) : n;
}

inline void rescale_sums(const Work& w, int64_t r, float by) {
  float* acc = w.place(w.at.acc) + r * w.at.v_depth;
  for (int64_t d = 0; d < w.at.v_depth; d += kLanes) store(acc + d, mul(load(acc + d), set1(by)));
}

template <class Kind, int Rows>
inline void softmax_of(Row* rows, bool masked, int64_t padded, float scale) {
  int64_t n = 0;
  for (int r = 0; r < Rows; ++r) n = max64(n, rows[r].n);
  const int64_t whole = round_up(n, kLanes * Kind::kVecs);
  for (int r = 0; r < Rows; ++r) {
    if (rows[r].n < whole) close_row(rows[r], whole);
  }
  if (masked) {
    softmax<true, Kind, Rows>(rows, whole, padded, kLog2e);
  } else {
    softmax<false, Kind, Rows>(rows, whole, padded, scale * kLog2e);
  }
}

// Scores [rows][n] of the keys from `from` on become weights; acc is brought to the new maximum.
template <class Kind>
void softmax_rows(const Work& w, int64_t from, int64_t n, int64_t padded) {
  constexpr int kTogether = 4;
  const AttentionProblem& p = w.p;
  const bool masked = p.mask_type != MaskType::none;
  const void* held = nullptr;
  Query query = w.query;
  for (int64_t r = 0; r < w.rows; r += kTogether) {
    const int64_t count = min64(kTogether, w.rows - r);
    Row rows[kTogether];
    for (int64_t i = 0; i < count; ++i, step(p, &query)) {
      rows[i] = {w.place(w.at.scores) + (r + i) * w.at.score_stride, seen(p, query, from, n),
                 w.place(w.at.max) + r + i, w.place(w.at.sum) + r + i, 1.0f};
      if (masked) add_mask(rows[i], mask_row(w, query, from, n, &held), p.scale);
    }
    if (count == kTogether) {
      softmax_of<Kind, kTogether>(rows, masked, padded, p.scale);
    } else {
      for (int64_t i = 0; i < count; ++i) softmax_of<Kind, 1>(rows + i, masked, padded, p.scale);
    }
    for (int64_t i = 0; i < count; ++i) {
      if (rows[i].rescale != 1.0f) rescale_sums(w, r + i, rows[i].rescale);
    }
  }
}

inline void put_output(const AttentionProblem& p, int64_t at, F32 v, int n) {
  switch (p.type) {
    case Dtype::bf16: return store_bf16(static_cast<uint16_t*>(p.out) + at, v, n);
    case Dtype::f16: return store_f16(static_cast<uint16_t*>(p.out) + at, v, n);
    default: return store(static_cast<float*>(p.out) + at, v, n);
  }
}

// out = acc / sum, 0 where no key counted.
void finish(const Work& w) {
  const AttentionProblem& p = w.p;
  Query row = w.query;
  for (int64_t r = 0; r < w.rows; ++r, step(p, &row)) {
    const float* acc = w.place(w.at.acc) + r * w.at.v_depth;
    const float sum = w.place(w.at.sum)[r];
    const F32 inverse = set1(sum == 0.0f ? 0.0f : 1.0f / sum);
    const int64_t to = ((w.batch * p.queries + row.token) * p.heads + row.head) * p.depth;
    int64_t d = 0;
    for (; d + kLanes <= p.depth; d += kLanes) {
      put_output(p, to + d, mul(load(acc + d), inverse), kLanes);
    }
    if (d < p.depth) {
      put_output(p, to + d, mul(load(acc + d), inverse), static_cast<int>(p.depth - d));
    }
  }
}

// Keys that some row of the block sees.
inline int64_t limit_of(const Work& w) {
  if (!w.p.causal) return w.p.keys;
  const int64_t last = w.query.token + w.rows - 1;  // behind the end: the next head has begun
  return min64(w.p.keys, min64(last + 1, w.p.queries));
}

void start(const Work& w) {
  for (int64_t r = 0; r < w.rows; ++r) {
    w.place(w.at.max)[r] = -kInfinity;
    w.place(w.at.sum)[r] = 0.0f;
  }
  float* acc = w.place(w.at.acc);
  for (int64_t i = 0; i < round_up(w.rows, kRowStep) * w.at.v_depth; ++i) acc[i] = 0.0f;
}

template <class Values>
void attend_packed(const Work& w) {
  const float *k = w.place(w.at.k), *v = w.place(w.at.v);
  float *q = w.place(w.at.q), *s = w.place(w.at.scores), *acc = w.place(w.at.acc);
  pack_q<Values>(w.p, w.batch, w.query, w.rows, w.at.k_depth, q);
  start(w);
  const int64_t limit = limit_of(w);
  for (int64_t from = 0; from < limit; from += w.at.chunk) {
    const int64_t n = min64(w.at.chunk, limit - from), padded = round_up(n, kWeightStep);
    scores(q, k + from * w.at.k_depth, w.at.k_depth, w.rows, n, s, w.at.score_stride);
    softmax_rows<Weights>(w, from, n, padded);
    values(s, w.at.score_stride, v + from / kPair * w.at.v_depth, padded, w.at.v_depth, w.rows,
           from > 0, acc);
  }
  finish(w);
}

template <class From, int Rows>
void attend_rows(const Work& w, const float* q) {
  const AttentionProblem& p = w.p;
  const auto* k = token<From>(p.k, p.k_stride, w.batch, w.kv_head, 0);
  const auto* v = token<From>(p.v, p.v_stride, w.batch, w.kv_head, 0);
  float *s = w.place(w.at.scores), *acc = w.place(w.at.acc);
  const int64_t limit = limit_of(w), padded = w.at.v_depth, stride = w.at.score_stride;
  for (int64_t from = 0; from < limit; from += w.at.chunk) {
    const int64_t n = min64(w.at.chunk, limit - from);
    direct_scores<From, Rows>(q, p.depth, padded, k + from * p.k_stride[2], p.k_stride[2], n, s,
                              stride);
    softmax_rows<FloatWeights>(w, from, n, n);
    direct_values<From, Rows>(s, stride, v + from * p.v_stride[2], p.v_stride[2], n, p.depth,
                              padded, acc);
  }
}

template <class From>
void attend_direct(const Work& w) {
  const AttentionProblem& p = w.p;
  float* q = w.place(w.at.q);
  Query row = w.query;
  for (int64_t r = 0; r < w.rows; ++r, step(p, &row)) {
    const auto* source = token<From>(p.q, p.q_stride, w.batch, row.head, row.token);
    for (int64_t d = 0; d < p.depth; d += kLanes) {
      const int n = static_cast<int>(min64(kLanes, p.depth - d));
      store(q + r * w.at.v_depth + d, From::floats(source + d, n));
    }
  }
  start(w);
  switch (w.rows) {
    case 1: attend_rows<From, 1>(w, q); break;
    case 2: attend_rows<From, 2>(w, q); break;
    case 3: attend_rows<From, 3>(w, q); break;
    default: attend_rows<From, 4>(w, q);
  }
  finish(w);
}

template <class Values, class From>
void attend_blocks(const AttentionProblem& p, int64_t begin, int64_t end, char* scratch) {
  const Scratch at = scratch_of(p, kShape);
  const int64_t rows = rows_of(p), per_head = (rows + at.rows - 1) / at.rows;
  const bool direct = is_direct(p);
  int64_t packed = -1;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t head = i / per_head, first = i % per_head * at.rows;
    const int64_t batch = head / p.kv_heads, kv_head = head % p.kv_heads;
    const Work w = {p,
                    at,
                    scratch,
                    batch,
                    kv_head,
                    first,
                    min64(at.rows, rows - first),
                    query_of(p, kv_head, first)};
    if (direct) {
      attend_direct<From>(w);
      continue;
    }
    if (head != packed) {
      pack_k<Values>(p, w.batch, w.kv_head, at, w.place(at.k));
      pack_v<Values>(p, w.batch, w.kv_head, at, w.place(at.v));
      packed = head;
    }
    attend_packed<Values>(w);
  }
}

int64_t count_blocks(const AttentionProblem& p) {
  const int64_t rows = rows_of(p), block = scratch_of(p, kShape).rows;
  return p.batch * p.kv_heads * ((rows + block - 1) / block);
}
