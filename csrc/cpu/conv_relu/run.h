// A checked convolution on torch's threads: which tiles gather, how much stays in caches, who does
// what. Only the driver includes this.
#pragma once
#include <cstring>

#include "cpu/conv_relu/padded.h"
#include "cpu/conv_relu/work.h"

namespace pyops::cpu {

// Tiles of pixels that pass a panel before the next panel is read, and most bytes of their input.
constexpr int kBlockTiles = 16;
constexpr int64_t kBlockBytes = 512 << 10;
// Channels of a depthwise convolution that go to one thread together, and most bytes of the rows
// that are read for some channels before it goes on to others.
constexpr int64_t kDepthwiseCols = 64, kDepthwiseBytes = 1 << 20;
// Taps of fewer channels are not worth a pointer each: the image is copied with its padding, so
// that a line of taps is one segment.
constexpr int64_t kFewChannels = 16;
// From so many bytes of a tile's pixels on lists take columns, and only for so many outputs.
constexpr int64_t kColumnsBytes = 48 << 10, kColumnsOutputs = 256;
// See lists_stay.
constexpr int64_t kFullBytes = 32 << 10, kShortBytes = 192 << 10;
// Addresses so far apart share a set of the first-level cache.
constexpr int64_t kSetBytes = 4096;
// More pixels than a set has ways would push each other out.
constexpr int kSetWays = 8;

// Strips to a row of output pixels, for kernels that take pixels in strips of equal distance; 0:
// tiles go on from row to row. Where windows overlap that is to gather each of them, which costs
// more than the idle part of a strip.
inline int64_t strips_of_row(const ConvCall& call) {
  const ConvShape& s = call.shape;
  const ConvHeader& h = call.header();
  const bool overlap = s.kh > s.stride_h || s.kw > s.stride_w;
  const int64_t across = s.dilation_w == 1 && s.groups == 1 ? s.kw : 1;
  if (!call.kernel.strips() || h.depthwise() || !overlap || across * h.cg % h.kr != 0) return 0;
  const int64_t strips = (s.ow + kConvStrip - 1) / kConvStrip;
  return 4 * s.ow >= 3 * strips * kConvStrip ? strips : 0;
}

struct ConvPlan {
  const ConvCall& call;
  const ConvHeader& header;
  ConvInput input;
  bool gather;            // every tile
  int64_t ld;             // elements of a gathered pixel
  int64_t tiles, panels;  // of the pixels; of all groups
  int64_t row_strips;     // of a row of pixels, where no tile goes on in the next; otherwise 0
  int block_tiles;
  int64_t table_bytes, tile_bytes;  // of one tile: pointers, gathered pixels

  // One thread's scratch: tables, gathered pixels, their pointers.
  int64_t scratch_bytes() const {
    return round_up(block_tiles * (table_bytes + tile_bytes + kConvPixels * 8), 64);
  }
  int64_t first_pixel(int64_t tile) const {
    if (row_strips == 0) return input.shape.pixels() * tile / tiles;
    const int64_t of_row = (row_strips + 1) / 2, strip = min64(tile % of_row * 2, row_strips);
    return (tile / of_row * row_strips + strip) * input.shape.ow / row_strips;
  }
};

// Tiles are rows of the output, panels are blocks of channels.
inline ConvPlan plan_depthwise(const ConvCall& call, const ConvInput& input) {
  const ConvShape& s = input.shape;
  ConvPlan p = {call, call.header(), input, false, 0, s.n * s.oh, 0, 0, 1, 0, 0};
  p.panels = (s.c + kDepthwiseCols - 1) / kDepthwiseCols;
  const int64_t read = s.w * s.c * input.element * s.stride_h;
  p.block_tiles = static_cast<int>(max64(1, min64(p.tiles, kDepthwiseBytes / (read + 1))));
  p.table_bytes = s.kh * static_cast<int64_t>(sizeof(TapRow));
  return p;
}

// Whether lists read columns of x, a cache line of them to an entry, and not the pixels where they
// are, which is a line of each: where those would come from the second-level cache, or where a
// panel is a vector wide and pointers take as long to reload as it takes to multiply.
inline void plan_lists(ConvPlan* p) {
  const ConvHeader& h = p->header;
  const int mr = p->call.kernel.mr;
  p->tile_bytes = round_up(h.padded_k() * h.element_bytes() * conv_column(mr), 64);
  const bool far = mr * h.k() * h.element_bytes() >= kColumnsBytes || h.nr < p->call.kernel.nr;
  p->gather = p->gather || (far && h.taps() == 1 && h.group_oc() >= kColumnsOutputs);
}

// Whether all lists pass a tile before the next one: where pixels fill the first-level cache and
// lists are short, an entry's two lines of weights are fetched faster than a line of each pixel.
inline bool lists_stay(const ConvPlan& p) {
  const ConvLists& lists = *p.call.lists;
  const int64_t pixels = p.call.kernel.mr * p.header.k() * p.header.element_bytes();
  return !p.gather && pixels >= kFullBytes && lists.begins[p.panels] <= kShortBytes;
}

inline ConvPlan plan_conv(const ConvCall& call, const ConvInput& input, int64_t row_strips) {
  const ConvHeader& h = call.header();
  if (h.depthwise()) return plan_depthwise(call, input);
  const ConvShape& s = input.shape;
  const ConvKernel& kernel = call.kernel;
  ConvPlan p = {call, h, input, false, 0, 0, 0, row_strips, 1, 0, 0};
  const int64_t pitch = s.stride_w * s.c * input.element, product = h.element_bytes();
  const bool shared_set = kernel.mr > kSetWays && !kernel.strips() && pitch % kSetBytes == 0;
  p.gather = (input.element != product || shared_set);
  // An odd number of cache lines spreads the pixels over all sets.
  const int64_t lines = (h.padded_k() * product + 63) / 64;
  p.ld = (lines | 1) * 64 / product;
  p.tiles =
      row_strips ? s.n * s.oh * ((row_strips + 1) / 2) : (s.pixels() + kernel.mr - 1) / kernel.mr;
  p.panels = conv_parts(h);
  p.table_bytes = h.taps() * kernel.mr * 8;
  p.tile_bytes = kernel.mr * p.ld * product;
  if (call.lists != nullptr) plan_lists(&p);
  const int64_t read = p.gather ? p.tile_bytes : kernel.mr * s.c * input.element * s.kh;
  p.block_tiles = static_cast<int>(max64(1, min64(kBlockTiles, kBlockBytes / (read + 1))));
  if (call.lists != nullptr && lists_stay(p)) p.block_tiles = 1;
  return p;
}

struct BlockTile {
  ConvTile tile;
  ConvRows found;
  const void** table;
  bool gather;
  const void* columns;  // of a gathered tile of lists
};

struct ConvPanel {
  const char* w;
  int64_t bytes;
  ConvList list;
};

inline ConvPanel panel_at(const ConvPlan& p, int64_t index) {
  const ConvHeader& h = p.header;
  const ConvLists* lists = p.call.lists;
  if (lists == nullptr) {
    return {conv_panel(p.call.packed, index / h.panels(), index % h.panels()), h.panel_bytes(), {}};
  }
  const char* from = lists->packed + lists->begins[index];
  const auto* counts = reinterpret_cast<const uint32_t*>(from);
  int64_t entries = 0;
  for (int64_t s = 0; s < lists->segments(); ++s) entries += counts[s];
  return {from + ConvLists::values_at(lists->segments(), entries),
          lists->bytes(index),
          {counts, reinterpret_cast<const uint16_t*>(counts + lists->segments()), h.nr, nullptr}};
}

// One group's pixels of tile `index` of a block, one after another, and pointers to them.
inline void gather_tile(const ConvPlan& p, int64_t group, int index, char* scratch, BlockTile* b) {
  char* gathered = scratch + p.block_tiles * p.table_bytes;
  const void** pixels = reinterpret_cast<const void**>(gathered + p.block_tiles * p.tile_bytes);
  const int64_t product = p.header.element_bytes();
  char* out = gathered + index * p.tile_bytes;
  pixels += index * kConvPixels;
  ConvTile& t = b->tile;
  if (p.call.lists != nullptr) {
    p.call.kernel.gather({b->table, b->found.segments, b->found.depth, group * p.header.cg,
                          p.call.type, t.pixels, out, p.ld, true});
    b->columns = out;
    return;
  }
  p.call.kernel.gather({b->table, b->found.segments, b->found.depth, group * p.header.cg,
                        p.call.type, t.pixels, out, p.ld});
  for (int r = 0; r < t.pixels; ++r) pixels[r] = out + r * p.ld * product;
  t.rows = pixels;
  t.segments = 1, t.depth = p.header.padded_k(), t.offset = 0;
  t.type = product == 2 ? Dtype::bf16 : Dtype::f32;
  t.step = p.ld * product;
}

// Tiles [first, last), at most a block, by panels [panel, panel_end).
inline void run_block(const ConvPlan& p, int64_t first, int64_t last, int64_t panel,
                      int64_t panel_end, char* scratch) {
  const ConvHeader& h = p.header;
  const int count = static_cast<int>(last - first);
  const int64_t panels = h.panels();
  BlockTile tiles[kBlockTiles];
  for (int64_t i = 0, m0 = p.first_pixel(first), end; i < count; ++i, m0 = end) {
    end = p.first_pixel(first + i + 1);
    const int pixels = static_cast<int>(end - m0);
    const void** table = reinterpret_cast<const void**>(scratch + i * p.table_bytes);
    const ConvRows found = fill_rows(p.input, m0, pixels, table);
    const ConvTile tile = {table, found.segments, found.depth, 0, p.call.type,      nullptr, pixels,
                           0,     found.step,     m0,          0, &p.call.epilogue, nullptr};
    const bool broken = found.depth % h.kr != 0 || (p.call.kernel.strips() && found.step == 0);
    tiles[i] = {tile, found, table, p.gather || broken, nullptr};
  }
  const int64_t start = panel;
  // Pixels of a 1 x 1 convolution that come from memory, where the panels stay in cache.
  const ConvShape& s = p.input.shape;
  const bool streams =
      p.tiles > 2 * p.block_tiles && s.kh * s.kw * s.groups == 1 && s.stride_h * s.stride_w == 1;
  int64_t group = panel / panels, own = panel % panels;
  bool next_group = true;
  for (; panel < panel_end; ++panel) {
    ConvPanel now = panel_at(p, panel);
    const ConvPanel next = panel_at(p, panel + 1 < panel_end ? panel + 1 : start);
    for (int i = 0; i < count; ++i) {
      ConvTile& t = tiles[i].tile;
      t.w = now.w;
      t.ahead = next.w + next.bytes / 64 * i / count * 64;
      if (streams && panel == start) {
        t.ahead = p.input.x + (t.m0 + t.pixels) * p.input.shape.c * p.input.element;
      }
      t.cols = static_cast<int>(min64(h.nr, h.group_oc() - own * h.nr));
      t.n0 = group * h.group_oc() + own * h.nr;
      if (!tiles[i].gather) {
        t.offset = group * h.cg;
      } else if (next_group) {
        gather_tile(p, group, i, scratch, &tiles[i]);
      }
      now.list.columns = tiles[i].columns;
      t.list = p.call.lists != nullptr ? &now.list : nullptr;
      p.call.kernel.tile(t);
    }
    next_group = ++own == panels;
    if (next_group) own = 0, ++group;
  }
}

// Rows [first, last) of the output by blocks of channels [panel, panel_end).
inline void run_depthwise(const ConvPlan& p, int64_t first, int64_t last, int64_t panel,
                          int64_t panel_end, char* scratch) {
  const ConvShape& s = p.input.shape;
  TapRow* rows = reinterpret_cast<TapRow*>(scratch);
  const float* w = reinterpret_cast<const float*>(conv_panel(p.call.packed, 0, 0));
  for (int64_t row = first; row < last; row += p.block_tiles) {
    const int64_t end = min64(last, row + p.block_tiles);
    fill_tap_rows(s, p.input.x, s.c * p.input.element, p.input.zeros, row, end, rows);
    p.call.kernel.depthwise({&s, rows, p.input.zeros, p.call.type, w, row, end,
                             panel * kDepthwiseCols, min64(s.c, panel_end * kDepthwiseCols),
                             &p.call.epilogue});
  }
}

inline Grid split_conv(const ConvPlan& p) {
  const ConvShape& s = p.input.shape;
  const ConvLists* lists = p.call.lists;
  const double all = 1.0 * conv_direct_bytes(p.header);
  const double bytes = lists ? 1.0 * (lists->begins[p.panels] - lists->begins[0]) : all;
  const double k = 1.0 * p.header.k() * bytes / all;  // on average
  return split_work({static_cast<int64_t>(1.0 * s.pixels() * s.oc * k),
                     p.call.kernel.mr * p.header.nr * k, p.tiles, p.panels,
                     1.0 * s.n * s.h * s.w * s.c * p.input.element, bytes});
}

// Where thread `part` of grid.tn begins.
inline int64_t panel_cut(const ConvPlan& p, const Grid& grid, int64_t part) {
  if (p.call.lists != nullptr) return p.call.lists->cut(part, grid.tn);
  return Grid::cut(p.panels, grid.tn, part);
}

inline void run_conv(const ConvCall& call) {
  static thread_local Buffer scratch, padded, zeros;
  const ConvHeader& h = call.header();
  const ConvShape& s = call.shape;
  const int64_t element = dtype_bytes(call.type);
  const char* x = static_cast<const char*>(call.x);
  ConvInput input = {s,
                     x,
                     element,
                     x + s.n * s.h * s.w * s.c * element,
                     nullptr,
                     false,
                     s.dilation_w == 1 && s.groups == 1 && call.lists == nullptr};
  const int64_t depth = (input.lines ? s.kw : 1) * h.cg;
  input.first = call.kernel.strips() && depth % h.kr == 0;
  const int64_t row_strips = strips_of_row(call);
  const bool few = input.lines && s.c < kFewChannels && h.taps() > 1;
  const bool padding = s.top + s.bottom + s.left + s.right > 0;
  if (padding && (few || row_strips > 0)) pad_image(&input, &padded);
  void* zero = zeros.get(s.c * element);
  std::memset(zero, 0, s.c * element);
  input.zeros = static_cast<const char*>(zero);
  const ConvPlan p = plan_conv(call, input, row_strips);
  const Grid grid = split_conv(p);
  const int64_t bytes = p.scratch_bytes();
  char* own = static_cast<char*>(scratch.get(grid.tm * grid.tn * bytes));
  parallel_range(grid.tm * grid.tn, 1, [&](int64_t begin, int64_t end) {
    call.kernel.start();
    for (int64_t i = begin; i < end; ++i) {
      const int64_t last = grid.row_end(i, p.tiles);
      const int64_t panel = panel_cut(p, grid, i % grid.tn);
      const int64_t panel_end = panel_cut(p, grid, i % grid.tn + 1);
      if (h.depthwise()) {
        run_depthwise(p, grid.row(i, p.tiles), last, panel, panel_end, own + i * bytes);
        continue;
      }
      for (int64_t t = grid.row(i, p.tiles); t < last; t += p.block_tiles) {
        run_block(p, t, min64(last, t + p.block_tiles), panel, panel_end, own + i * bytes);
      }
    }
    call.kernel.stop();
  });
}

}  // namespace pyops::cpu
