// Rows of codes through the formula of int8_pool.h. Include after epilogue.inl.h.

// What a row's term is, known to the compiler: of the types of codes, and the float types as one.
enum class Term : int { none, u8, s8, real };

inline Term term_of(const CodeTerm& t) {
  if (!t.data) return Term::none;
  return t.type == Dtype::u8 ? Term::u8 : t.type == Dtype::s8 ? Term::s8 : Term::real;
}

template <Term kTerm>
inline F32 value_of(const CodeTerm& t, int64_t at, int lanes) {
  if constexpr (kTerm == Term::real) {
    return load_float(t.data, t.type, at, lanes);
  } else {
    const uint8_t* codes = static_cast<const uint8_t*>(t.data) + at;
    const I32 q = kTerm == Term::u8 ? load_u8(codes, lanes) : load_s8(codes, lanes);
    return mul(to_f32(sub(q, set1_i32(t.zero))), set1(t.scale));
  }
}

template <Term kA, Term kB>
inline F32 value_at(const CodeRows& r, int64_t a, int64_t b, int lanes) {
  F32 v = value_of<kA>(r.a, a, lanes);
  if constexpr (kB != Term::none) {
    v = add(v, value_of<kB>(r.b, b, lanes));
    v = min(set1(r.high), max(set1(r.low), v));  // in this order NaN comes through
  }
  return v;
}

template <Dtype kOut, Term kA, Term kB>
void rows_of(const CodeRows& given) {
  const CodeRows r = given;  // a copy that no store can alias
  Epilogue e = {};
  e.out = r.out;
  e.out_inverse_scale = r.out_inverse_scale;
  e.out_zero = r.out_zero;
  for (int64_t row = 0; row < r.rows; ++row) {
    const int64_t a = row * r.a.ld, b = row * r.b.ld, out = row * r.ld_out;
    int64_t i = 0;
    if constexpr (packs_codes<kOut, kFinishVecs>()) {
      for (; i + kFinishVecs * kLanes <= r.cols; i += kFinishVecs * kLanes) {
        I32 codes[kFinishVecs];
        PYOPS_UNROLL
        for (int j = 0; j < kFinishVecs; ++j) {
          const int64_t at = i + j * kLanes;
          codes[j] = unbounded_code<kOut>(e, value_at<kA, kB>(r, a + at, b + at, kLanes));
        }
        store_codes<kOut == Dtype::u8>(static_cast<uint8_t*>(e.out) + out + i, codes, e.out_zero);
      }
    }
    for (; i + kLanes <= r.cols; i += kLanes) {
      store_out<kOut>(e, out + i, value_at<kA, kB>(r, a + i, b + i, kLanes), kLanes);
    }
    if (i < r.cols) {
      const int lanes = static_cast<int>(r.cols - i);
      store_out<kOut>(e, out + i, value_at<kA, kB>(r, a + i, b + i, lanes), lanes);
    }
  }
}

template <Dtype kOut, Term kA>
inline void rows_with(const CodeRows& r) {
  switch (term_of(r.b)) {
    case Term::u8: return rows_of<kOut, kA, Term::u8>(r);
    case Term::s8: return rows_of<kOut, kA, Term::s8>(r);
    default: return rows_of<kOut, kA, Term::none>(r);
  }
}

template <Dtype kOut>
inline void rows_to(const CodeRows& r) {
  switch (term_of(r.a)) {
    case Term::u8: return rows_with<kOut, Term::u8>(r);
    case Term::s8: return rows_with<kOut, Term::s8>(r);
    default: return rows_of<kOut, Term::real, Term::none>(r);
  }
}

inline void code_rows_impl(const CodeRows& r) {
  switch (r.out_type) {
    case Dtype::f32: return rows_to<Dtype::f32>(r);
    case Dtype::bf16: return rows_to<Dtype::bf16>(r);
    case Dtype::f16: return rows_to<Dtype::f16>(r);
    case Dtype::s8: return rows_to<Dtype::s8>(r);
    default: return rows_to<Dtype::u8>(r);
  }
}
