// A checked convolution, and how its tiles and panels are given to torch's threads.
#pragma once
#include "cpu/common/driver.h"
#include "cpu/common/partition.h"
#include "cpu/conv_relu/lists.h"

namespace pyops::cpu {

struct ConvCall {
  const ConvKernel& kernel;
  const void* packed;
  ConvShape shape;
  Dtype type;
  const void* x;
  Epilogue epilogue;
  const ConvLists* lists = nullptr;  // of a sparse weight

  const ConvHeader& header() const { return lists ? lists->header : conv_header(packed); }
};

// tile_products: of one tile of pixels by one panel of output channels.
struct ConvWork {
  int64_t products;
  double tile_products;
  int64_t tiles, panels;
  double x_bytes, w_bytes;
};

// Below so many products a second thread costs more than it saves.
constexpr int64_t kSerialConvProducts = 1 << 17;

// Threads take tiles, panels or both: what makes products and bytes of the busiest one cheapest.
inline Grid split_work(const ConvWork& w) {
  const int64_t threads = w.products < kSerialConvProducts ? 1 : num_threads();
  constexpr double kProductsPerByte = 4.0;  // 32 products and 8 bytes a cycle
  Grid grid = {1, 1, 1, 1, w.tiles, w.panels};
  double least = -1;
  for (int64_t tn = min64(threads, w.panels); tn >= 1; --tn) {
    const int64_t tm = min64(threads / tn, w.tiles);
    const int64_t most = ((w.tiles + tm - 1) / tm) * ((w.panels + tn - 1) / tn);
    const double bytes = w.x_bytes / static_cast<double>(tm) + w.w_bytes / static_cast<double>(tn);
    const double cost = w.tile_products * static_cast<double>(most) + kProductsPerByte * bytes;
    if (least >= 0 && cost >= least) continue;
    least = cost;
    grid.tm = tm;
    grid.tn = tn;
  }
  return grid;
}

}  // namespace pyops::cpu
