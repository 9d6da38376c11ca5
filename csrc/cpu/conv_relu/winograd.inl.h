// The transforms of winograd.h, channels in lanes. Include after epilogue_float.inl.h.

// B^T d B of the pixels d, with B^T = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1].
inline void winograd_input(const WinogradInput& t) {
  for (int64_t c = 0; c < t.c; c += kLanes) {
    const int lanes = static_cast<int>(min64(kLanes, t.c - c));
    F32 d[4][4];
    PYOPS_UNROLL
    for (int j = 0; j < 4; ++j) {
      F32 column[4];
      PYOPS_UNROLL
      for (int i = 0; i < 4; ++i) column[i] = load(t.x[4 * i + j] + c, lanes);
      d[0][j] = sub(column[0], column[2]);
      d[1][j] = add(column[1], column[2]);
      d[2][j] = sub(column[2], column[1]);
      d[3][j] = sub(column[1], column[3]);
    }
    float* out = t.out + c;
    PYOPS_UNROLL
    for (int i = 0; i < 4; ++i, out += 4 * t.step) {
      store(out, sub(d[i][0], d[i][2]));
      store(out + t.step, add(d[i][1], d[i][2]));
      store(out + 2 * t.step, sub(d[i][2], d[i][1]));
      store(out + 3 * t.step, sub(d[i][1], d[i][3]));
    }
  }
}

// A^T m A of one tile's sums m, some channels, with A^T = [1 1 1 0; 0 1 -1 -1].
inline void winograd_sums(const float* m, int64_t step, float* top, float* bottom) {
  F32 y[2][4];
  PYOPS_UNROLL
  for (int j = 0; j < 4; ++j) {
    const F32 m0 = load(m + j * step), m1 = load(m + (4 + j) * step);
    const F32 m2 = load(m + (8 + j) * step), m3 = load(m + (12 + j) * step);
    y[0][j] = add(add(m0, m1), m2);
    y[1][j] = sub(sub(m1, m2), m3);
  }
  store(top, add(add(y[0][0], y[0][1]), y[0][2]));
  store(top + kWinogradCols, sub(sub(y[0][1], y[0][2]), y[0][3]));
  store(bottom, add(add(y[1][0], y[1][1]), y[1][2]));
  store(bottom + kWinogradCols, sub(sub(y[1][1], y[1][2]), y[1][3]));
}

inline void winograd_output(const WinogradOutput& t) {
  alignas(64) float sums[2][2 * kWinogradRun * kWinogradCols];
  for (int i = 0; i < t.tiles; ++i) {
    const int64_t at = 2 * i * kWinogradCols;
    for (int c = 0; c < t.cols; c += kLanes) {
      winograd_sums(t.sums + i * kWinogradCols + c, t.step, sums[0] + at + c, sums[1] + at + c);
    }
  }
  const Epilogue& e = *t.epilogue;
  const FinishFloatFn finish = finish_float_for(e);
  finish(e, sums[0], kWinogradCols, t.top, t.pixels, t.n0, t.cols);
  if (t.bottom >= 0) finish(e, sums[1], kWinogradCols, t.bottom, t.pixels, t.n0, t.cols);
}
