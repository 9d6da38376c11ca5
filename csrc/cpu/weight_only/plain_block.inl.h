// A block in plain C++, for any kTileMr x kTileNr. Include after epilogue_float.inl.h.

// kWeightDepth rows of a panel as floats [k][kTileNr]; codes beyond K are 0.
template <int kTileNr>
void decode_words(const uint8_t* words, int cols, float* w) {
  for (int c = 0; c < cols; ++c, words += 4) {
    uint32_t word;
    __builtin_memcpy(&word, words, 4);
    for (int i = 0; i < kWeightDepth; ++i, word >>= 4) {
      w[i * kTileNr + c] = static_cast<float>(static_cast<int>((word & 15) ^ 8) - 8);
    }
  }
}

template <int kTileNr>
void add_products(const WeightBlock& b, int64_t k, int64_t depth, int64_t r0, int rows,
                  const float* w, float* sum) {
  for (int64_t i = 0; i < depth; ++i, w += kTileNr) {
    for (int r = 0; r < rows; ++r) {
      const float x = b.x[(r0 + r) * b.ldx + k + i];
      for (int c = 0; c < b.cols; ++c) sum[r * kTileNr + c] += x * w[c];
    }
  }
}

// sums += scale * (sum - zero * x_sums) of one group.
template <int kTileNr>
void add_group(const WeightBlock& b, int64_t g, const GroupParts& parts, const uint8_t* group,
               int64_t r0, int rows, const float* sum, float* sums) {
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < b.cols; ++c) {
      float scale, value = sum[r * kTileNr + c];
      __builtin_memcpy(&scale, group + parts.scale + 4 * c, 4);
      if (b.format.zeros) {
        value -= static_cast<int8_t>(group[parts.zero + c]) * b.x_sums[(r0 + r) * b.ld_sums + g];
      }
      sums[r * kTileNr + c] += scale * value;
    }
  }
}

template <int kTileMr, int kTileNr>
void int4_sums(const WeightBlock& b, int64_t r0, int rows, float* sums) {
  float sum[kTileMr * kTileNr], w[kWeightDepth * kTileNr] = {};
  const uint8_t* group = b.w;
  for (int64_t k0 = 0, g = 0; k0 < b.k; k0 += b.format.group, ++g) {
    const int64_t depth = min64(b.format.group, b.k - k0);
    const GroupParts parts = group_parts(depth, b.cols, b.format.zeros);
    for (float& s : sum) s = 0.0f;
    for (int64_t k = 0; k < depth; k += kWeightDepth) {
      decode_words<kTileNr>(group + k / 2 * b.cols, b.cols, w);
      add_products<kTileNr>(b, k0 + k, kWeightDepth, r0, rows, w, sum);
    }
    add_group<kTileNr>(b, g, parts, group, r0, rows, sum, sums);
    group += parts.bytes;
  }
}

// As int4_sums, but with floats (q - zero) * scale, each rounded: for rows with NaN or Inf.
template <int kTileMr, int kTileNr>
void int4_sums_of_floats(const WeightBlock& b, int64_t r0, int rows, float* sums) {
  float w[kWeightDepth * kTileNr] = {};
  const uint8_t* group = b.w;
  for (int64_t k0 = 0; k0 < b.k; k0 += b.format.group) {
    const int64_t depth = min64(b.format.group, b.k - k0);
    const GroupParts parts = group_parts(depth, b.cols, b.format.zeros);
    for (int64_t k = 0; k < depth; k += kWeightDepth) {
      decode_words<kTileNr>(group + k / 2 * b.cols, b.cols, w);
      for (int i = 0; i < kWeightDepth; ++i) {
        for (int c = 0; c < b.cols; ++c) {
          float scale, zero = 0.0f;
          __builtin_memcpy(&scale, group + parts.scale + 4 * c, 4);
          if (b.format.zeros) zero = static_cast<int8_t>(group[parts.zero + c]);
          w[i * kTileNr + c] = (w[i * kTileNr + c] - zero) * scale;
        }
      }
      add_products<kTileNr>(b, k0 + k, min64(kWeightDepth, depth - k), r0, rows, w, sums);
    }
    group += parts.bytes;
  }
}

template <int kTileMr, int kTileNr>
void int8_sums(const WeightBlock& b, int64_t r0, int rows, float* sums) {
  float w[kTileNr];
  const uint8_t* codes = b.w;
  for (int64_t k = 0; k < b.k; ++k, codes += b.cols) {
    for (int c = 0; c < b.cols; ++c) w[c] = static_cast<int8_t>(codes[c]);
    add_products<kTileNr>(b, k, 1, r0, rows, w, sums);
  }
}

template <int kTileMr, int kTileNr>
void plain_block(const WeightBlock& b) {
  float sums[kTileMr * kTileNr];
  Epilogue e = *b.epilogue;
  const FinishFloatFn finish = finish_float_for(e);
  for (int64_t r0 = 0; r0 < b.rows; r0 += kTileMr) {
    const int rows = static_cast<int>(min64(kTileMr, b.rows - r0));
    for (float& s : sums) s = 0.0f;
    if (b.format.bits == 8) {
      int8_sums<kTileMr, kTileNr>(b, r0, rows, sums);
    } else if (b.decode) {
      int4_sums_of_floats<kTileMr, kTileNr>(b, r0, rows, sums);
    } else {
      int4_sums<kTileMr, kTileNr>(b, r0, rows, sums);
    }
    finish(e, sums, kTileNr, r0, rows, b.n0, b.cols);
  }
}
