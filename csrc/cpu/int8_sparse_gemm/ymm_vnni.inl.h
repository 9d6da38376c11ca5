// Products of codes on 32-byte vectors. Include after items.inl.h; the kernel file provides dot4.

constexpr int kTokens = 32, kQuadVecs = 2;

#include "cpu/int8_sparse_gemm/ymm.inl.h"
#include "cpu/int8_sparse_gemm/dot.inl.h"

inline void store_row(char* to, I32 codes) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), codes);
}

#include "cpu/int8_sparse_gemm/lanes.inl.h"
#include "cpu/int8_sparse_gemm/tokens.inl.h"
#include "cpu/int8_sparse_gemm/few_plain.inl.h"
#include "cpu/int8_sparse_gemm/few_rows.inl.h"
