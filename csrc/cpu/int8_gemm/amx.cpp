// 32 x 32 tile of AMX: four 16 x 16 sums, two tiles of a and two of w. Codes of a are s8 or u8: no
// shift of either.
//
//   tmm 0 1     sums, upper rows     tmm 4  a upper rows     tmm 6 7  w columns 0..15, 16..31
//       2 3          lower rows          5  a lower rows
//
// Where fewer than 16 rows are left, their tile begins among rows that are done: it computes those
// again, and the tiles keep their configuration, which takes as long to load as two steps.
//
// A tile of w is 16 rows of 64 bytes, row i holding k = 4i..4i+3 of 16 columns: the packed panel of
// the VNNI levels as it stands, read with its own stride.
#define PYOPS_AVX512_BF16
#include "cpu/target.h"
#if PYOPS_X86
#include <immintrin.h>

#include "cpu/common/half.h"
#include "cpu/int8_gemm/int8_gemm.h"

PYOPS_TARGET_BEGIN(
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,amx-tile,amx-int8,prfchw")
namespace pyops::cpu::amx {
namespace {

#include "cpu/common/vec_avx512.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/norm_row.inl.h"
#include "cpu/common/tiles_amx.inl.h"
#include "cpu/int8_gemm/quantize_row.inl.h"

constexpr int kTileRows = 16, kTileBytes = 64, kMaxCols = 64;
constexpr int64_t kTileDepth = 64;

// w at depth k: in the panel itself, or in a zero-padded copy where fewer than 64 k are left.
struct Weights {
  const int8_t* panel;
  const int8_t* last;  // [16][kMaxCols][4], or null
  int64_t stride;
};

// Walks over the next panel while this one is multiplied, so that it waits in L2: a tile load that
// misses it stalls the four multiplies behind it.
struct Ahead {
  const char* at;
  int64_t lines_per_step;

  void step() {
    for (int64_t i = 0; i < lines_per_step; ++i, at += 64) _mm_prefetch(at, _MM_HINT_T1);
  }
};

// Where the upper and the lower rows of a tile begin, and their taps.
struct Rows {
  const int8_t *upper, *lower;
  int64_t lda;
  const int64_t* tap;
  int64_t taps, depth;  // of each tap, in whole tiles
};

template <bool kUnsigned, bool kLower>
inline void step(const Rows& a, int64_t k, const int8_t* w, int64_t stride) {
  // Tiles of w pass by: without this hint (tileloaddt1) they drive those of a out of L1.
  _tile_stream_loadd(6, w, stride);
  _tile_stream_loadd(7, w + kTileBytes, stride);
  _tile_loadd(4, a.upper + k, a.lda);
  if (kUnsigned) {
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
  } else {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
  }
  if (!kLower) return;
  _tile_loadd(5, a.lower + k, a.lda);
  if (kUnsigned) {
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  } else {
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
}

// The sums of 32 columns, of the upper rows into acc[][kMaxCols], of the lower ones into acc_lower;
// start: what the columns' sums start from, or null.
template <bool kUnsigned, bool kLower>
__attribute__((noinline)) void tile(const Rows& a, const Weights& w, int c0, const int32_t* start,
                                    int32_t* acc, int32_t* acc_lower, Ahead* ahead) {
  if (start == nullptr) {
    _tile_zero(0);
    _tile_zero(1);
    if (kLower) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {  // a stride of 0 loads one row into all
    _tile_loadd(0, start + c0, 0);
    _tile_loadd(1, start + c0 + 16, 0);
    if (kLower) {
      _tile_loadd(2, start + c0, 0);
      _tile_loadd(3, start + c0 + 16, 0);
    }
  }
  const int8_t* w_tile = w.panel + c0 * 4;
  for (int64_t t = 0; t < a.taps; ++t) {
    const int64_t begin = a.tap[t], end = begin + a.depth;
    for (int64_t k = begin; k < end; k += kTileDepth, w_tile += kTileRows * w.stride) {
      ahead->step();
      step<kUnsigned, kLower>(a, k, w_tile, w.stride);
    }
  }
  if (w.last) step<kUnsigned, kLower>(a, a.depth, w.last + c0 * 4, kMaxCols * 4);
  _tile_stored(0, acc, kMaxCols * 4);
  _tile_stored(1, acc + 16, kMaxCols * 4);
  if (kLower) {
    _tile_stored(2, acc_lower, kMaxCols * 4);
    _tile_stored(3, acc_lower + 16, kMaxCols * 4);
  }
}

// Copies the groups of 4 k from `whole` on, with zeros behind them.
void copy_last(const Int8GemmBlock& b, int64_t whole, int8_t* last) {
  for (int i = 0; i < kTileRows * kMaxCols * 4; ++i) last[i] = 0;
  for (int64_t k = whole; k < b.k; k += 4) {
    const int8_t* from = b.w + k * b.stored_cols;
    int8_t* to = last + (k - whole) * kMaxCols;
    for (int i = 0; i < b.cols * 4; ++i) to[i] = from[i];
  }
}

// Places [place, place + count) hold rows with gaps between them; their sums are in acc.
void finish_rows(const Taps& taps, const FinishFn finish, const Epilogue& e, const int32_t* acc,
                 int64_t place, int64_t count, int64_t n0, int cols) {
  const int64_t end = place + count;
  for (int64_t x = taps.x0 + place; x < taps.x0 + end;) {
    const int64_t line = x / taps.pitch, col = x % taps.pitch;
    const int64_t next = min64(taps.x0 + end, (line + 1) * taps.pitch);
    const int64_t rows = min64(next - x, taps.width - col);
    if (rows > 0) {
      finish(e, acc + (x - taps.x0 - place) * kMaxCols, kMaxCols, line * taps.width + col - taps.x0,
             static_cast<int>(rows), n0, cols);
    }
    x = next;
  }
}

template <bool kUnsigned>
void block(const Int8GemmBlock& b) {
  alignas(64) int32_t acc[2 * kTileRows * kMaxCols];
  alignas(64) int8_t last[kTileRows * kMaxCols * 4];
  const int64_t whole = b.k / kTileDepth * kTileDepth;
  Weights w = {b.w, nullptr, static_cast<int64_t>(b.stored_cols) * 4};
  if (whole < b.k) {
    copy_last(b, whole, last);
    w.last = last;
  }
  alignas(64) int32_t start_buffer[kMaxCols] = {};
  Epilogue epilogue = *b.epilogue;
  const int32_t* start = start_sums(&epilogue, b.n0, b.cols, start_buffer) ? start_buffer : nullptr;
  const FinishFn finish = finish_for(epilogue);
  const int64_t no_taps = 0;
  const Taps one = {b.rows, b.rows, 0, 1, whole, &no_taps}, &taps = b.taps ? *b.taps : one;
  const int64_t places = taps.place(b.rows - 1) + 1;
  const int64_t passes = (places + 31) / 32 * ((b.cols + 31) / 32);
  const char* next_panel = reinterpret_cast<const char*>(b.w) + b.k * b.stored_cols;
  Ahead ahead = {next_panel, (b.stored_cols + passes - 1) / passes};
  const int height = static_cast<int>(min64(kTileRows, places));
  if (b.first) configure_tiles(height);
  for (int64_t r0 = 0; r0 < places; r0 += 2 * kTileRows) {
    const int rows = static_cast<int>(min64(2 * kTileRows, places - r0));
    const int back = rows < height ? height - rows : 0;  // rows done before
    const int lower = rows > kTileRows ? rows - kTileRows : 0;
    const int8_t* upper_a = static_cast<const int8_t*>(b.a) + (r0 - back) * b.lda_bytes;
    const Rows a = {upper_a,   upper_a + lower * b.lda_bytes, b.lda_bytes, taps.at, taps.count,
                    taps.depth};
    if (!b.taps) prefetch_output(epilogue, r0, rows, b.n0, b.cols);
    for (int c0 = 0; c0 < b.cols; c0 += 32) {
      if (lower) {
        tile<kUnsigned, true>(a, w, c0, start, acc + c0, acc + lower * kMaxCols + c0, &ahead);
      } else {
        tile<kUnsigned, false>(a, w, c0, start, acc + c0, nullptr, &ahead);
      }
    }
    const int32_t* sums = acc + back * kMaxCols;
    if (b.taps) {
      finish_rows(taps, finish, epilogue, sums, r0, rows, b.n0, b.cols);
    } else {
      finish(epilogue, sums, kMaxCols, r0, rows, b.n0, b.cols);
    }
  }
  if (b.last) _tile_release();
}

}  // namespace

void int8_gemm_block(const Int8GemmBlock& b) {
  return b.codes == Codes::u8 ? block<true>(b) : block<false>(b);
}
void norm_row(const NormRow& row) { norm_row_impl(row); }
void quantize_row(const QuantizeRow& row) { quantize_row_impl(row); }

}  // namespace pyops::cpu::amx
PYOPS_TARGET_END
#endif
