#include "cpu/conv_relu/winograd.h"

#include <cstring>

#include "cpu/common/buffer.h"

namespace pyops::cpu {
namespace {

constexpr int kTaps = 16;  // products of a tile
// Most bytes of transformed pixels and sums that all panels pass over before the next tiles.
constexpr int64_t kBlockBytes = 384 << 10;

int64_t panel_floats(const ConvHeader& h) { return int64_t{kTaps} * h.cg * h.nr; }

const float* panel_of(const void* packed, int64_t panel) {
  const ConvHeader& h = conv_header(packed);
  const char* first = static_cast<const char*>(packed) + conv_direct_bytes(h);
  return reinterpret_cast<const float*>(first) + panel * panel_floats(h);
}

// G w G^T, in double so that each of the 16 is rounded once.
void transform_weight(const float* w, float* out, int64_t step) {
  constexpr double kG[4][3] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      double sum = 0;
      for (int ky = 0; ky < 3; ++ky) {
        for (int kx = 0; kx < 3; ++kx) sum += kG[i][ky] * kG[j][kx] * w[ky * 3 + kx];
      }
      out[(4 * i + j) * step] = static_cast<float>(sum);
    }
  }
}

struct Plan {
  const ConvCall& call;
  const ConvHeader& header;
  int64_t across, down;           // tiles to a row of them, and rows, of an image
  int64_t tiles, strips, panels;  // strips: of as many tiles as the kernel has pixels
  int64_t block;                  // strips that panels pass over together
  int64_t ld;                     // floats from one transformed tile to the next
  const float* zeros;

  int64_t most_tiles() const { return block * call.kernel.mr; }
  int64_t step() const { return most_tiles() * ld; }  // from one of 16 to the next
  int64_t sums_step() const { return most_tiles() * kWinogradCols; }
  int64_t scratch_bytes() const { return kTaps * (step() + sums_step()) * 4; }
  int64_t first_tile(int64_t strip) const { return tiles * strip / strips; }
};

Plan plan_of(const ConvCall& call) {
  const ConvShape& s = call.shape;
  const ConvHeader& h = conv_header(call.packed);
  Plan p = {call, h, (s.ow + 1) / 2, (s.oh + 1) / 2, 0, 0, h.panels(), 0, 0, nullptr};
  p.tiles = s.n * p.across * p.down;
  p.strips = (p.tiles + call.kernel.mr - 1) / call.kernel.mr;
  // An odd number of cache lines spreads the tiles over all sets.
  p.ld = ((s.c + 15) / 16 | 1) * 16;
  const int64_t bytes = call.kernel.mr * kTaps * (p.ld + kWinogradCols) * 4;
  p.block = min64(p.strips, max64(2, kBlockBytes / bytes));
  return p;
}

struct TileAt {
  int64_t image, y, x;  // y, x: of tiles
};

TileAt tile_at(const Plan& p, int64_t tile) {
  const int64_t line = tile / p.across;
  return {line / p.down, line % p.down, tile % p.across};
}

// Tiles [first, last) to v [16][most_tiles][ld].
void transform_pixels(const Plan& p, int64_t first, int64_t last, float* v) {
  const ConvShape& s = p.call.shape;
  const float* image = static_cast<const float*>(p.call.x);
  for (int64_t tile = first; tile < last; ++tile, v += p.ld) {
    const TileAt at = tile_at(p, tile);
    const int64_t y = 2 * at.y - s.top, x = 2 * at.x - s.left;
    const float* pixels[kTaps];
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t j = 0; j < 4; ++j) {
        const bool inside = y + i >= 0 && y + i < s.h && x + j >= 0 && x + j < s.w;
        const int64_t pixel = (at.image * s.h + y + i) * s.w + x + j;
        pixels[4 * i + j] = inside ? image + pixel * s.c : p.zeros;
      }
    }
    p.call.kernel.winograd_input({pixels, s.c, v, p.step()});
  }
}

// The sums of strips [first, last) for one panel, [16][most_tiles][kWinogradCols].
void multiply(const Plan& p, int64_t first, int64_t last, const float* w, const char* next,
              int cols, const float* v, float* sums) {
  const int64_t depth = p.header.cg, start = p.first_tile(first);
  const int64_t lines = depth * p.header.nr * 4 / 64;
  Epilogue e = {};
  e.out_type = Dtype::f32;
  e.ld = kWinogradCols;
  const void* rows[kConvPixels];
  for (int tap = 0; tap < kTaps; ++tap, v += p.step(), sums += p.sums_step()) {
    const float* panel = w + tap * depth * p.header.nr;
    const char* ahead =
        tap + 1 < kTaps ? reinterpret_cast<const char*>(panel + depth * p.header.nr) : next;
    e.out = sums;
    for (int64_t strip = first; strip < last; ++strip) {
      const int64_t m0 = p.first_tile(strip) - start;
      const int pixels = static_cast<int>(p.first_tile(strip + 1) - start - m0);
      for (int r = 0; r < pixels; ++r) rows[r] = v + (m0 + r) * p.ld;
      p.call.kernel.tile({rows, 1, depth, 0, Dtype::f32, panel, pixels, cols, 0, m0, 0, &e,
                          ahead + lines * (strip - first) / (last - first) * 64});
    }
  }
}

// Tiles [first, last) of the output, from their sums.
void finish(const Plan& p, int64_t first, int64_t last, int64_t n0, int cols, const float* sums) {
  const ConvShape& s = p.call.shape;
  for (int64_t tile = first; tile < last;) {
    const TileAt at = tile_at(p, tile);
    const int64_t count = min64(min64(last - tile, p.across - at.x), kWinogradRun);
    const int64_t top = (at.image * s.oh + 2 * at.y) * s.ow + 2 * at.x;
    const int pixels = static_cast<int>(min64(2 * count, s.ow - 2 * at.x));
    p.call.kernel.winograd_output({sums, p.sums_step(), static_cast<int>(count), cols, top,
                                   2 * at.y + 1 < s.oh ? top + s.ow : -1, pixels, n0,
                                   &p.call.epilogue});
    tile += count;
    sums += count * kWinogradCols;
  }
}

// Strips [first, last), at most a block, by panels [panel, panel_end).
void run_block(const Plan& p, int64_t first, int64_t last, int64_t panel, int64_t panel_end,
               float* scratch) {
  const ConvHeader& h = p.header;
  const int64_t begin = p.first_tile(first), end = p.first_tile(last), start = panel;
  float* sums = scratch + kTaps * p.step();
  transform_pixels(p, begin, end, scratch);
  for (; panel < panel_end; ++panel) {
    const int cols = static_cast<int>(min64(h.nr, h.oc - panel * h.nr));
    const float* next = panel_of(p.call.packed, panel + 1 < panel_end ? panel + 1 : start);
    multiply(p, first, last, panel_of(p.call.packed, panel), reinterpret_cast<const char*>(next),
             cols, scratch, sums);
    finish(p, begin, end, panel * h.nr, cols, sums);
  }
}

}  // namespace

int64_t winograd_bytes(const ConvHeader& h) {
  return round_up(h.panels() * panel_floats(h) * 4, 64);
}

void pack_winograd(void* packed, const float* w, int64_t first, int64_t last) {
  const ConvHeader& h = conv_header(packed);
  for (int64_t panel = first; panel < last; ++panel) {
    float* out = const_cast<float*>(panel_of(packed, panel));
    std::memset(out, 0, static_cast<size_t>(panel_floats(h) * 4));
    const int64_t cols = min64(h.nr, h.oc - panel * h.nr);
    for (int64_t col = 0; col < cols; ++col) {
      for (int64_t c = 0; c < h.cg; ++c) {
        const float* from = w + ((panel * h.nr + col) * h.cg + c) * 9;
        transform_weight(from, out + c * h.nr + col, int64_t{h.cg} * h.nr);
      }
    }
  }
}

void run_winograd(const ConvCall& call) {
  static thread_local Buffer scratch, zeros;
  const ConvShape& s = call.shape;
  void* zero = zeros.get(s.c * 4);
  std::memset(zero, 0, static_cast<size_t>(s.c) * 4);
  Plan p = plan_of(call);
  p.zeros = static_cast<const float*>(zero);
  const int64_t tile = int64_t{call.kernel.mr} * p.header.nr * kTaps * s.c;
  const Grid grid = split_work({tile * p.strips * p.panels, static_cast<double>(tile), p.strips,
                                p.panels, 1.0 * s.n * s.h * s.w * s.c * 4,
                                4.0 * static_cast<double>(p.panels * panel_floats(p.header))});
  const int64_t bytes = p.scratch_bytes();
  char* own = static_cast<char*>(scratch.get(grid.tm * grid.tn * bytes));
  parallel_range(grid.tm * grid.tn, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t last = grid.row_end(i, p.strips);
      for (int64_t t = grid.row(i, p.strips); t < last; t += p.block) {
        run_block(p, t, min64(last, t + p.block), grid.col(i, p.panels), grid.col_end(i, p.panels),
                  reinterpret_cast<float*>(own + i * bytes));
      }
    }
  });
}

}  // namespace pyops::cpu
