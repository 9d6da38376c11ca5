// Blocks of panels, of each form. Include after epilogue.inl.h, inside an anonymous namespace; the
// kernel file provides what quads_tile.inl.h and windows_tile.inl.h ask for, kQuadsMr, kQuadsVecs,
// kWindowsMr and kWindowsVecs, and defines PYOPS_AHEAD, the file with prefetches.

namespace quads {
constexpr int kMr = kQuadsMr, kTileVecs = kQuadsVecs, kTileCols = kTileVecs * kLanes;
#include PYOPS_AHEAD
#include "cpu/int8_gemm/dot_tiles.inl.h"
#include "cpu/int8_sparse_gemm/quads_tile.inl.h"
#include "cpu/int8_sparse_gemm/panel_run.inl.h"
}  // namespace quads

namespace windows8 {
constexpr int kMr = kWindowsMr, kTileVecs = kWindowsVecs, kTileCols = kTileVecs * kLanes;
constexpr int kWindow = 8;
#include PYOPS_AHEAD
#include "cpu/int8_gemm/dot_tiles.inl.h"
#include "cpu/int8_sparse_gemm/windows_tile.inl.h"
#include "cpu/int8_sparse_gemm/panel_run.inl.h"
}  // namespace windows8

namespace windows16 {
constexpr int kMr = kWindowsMr, kTileVecs = kWindowsVecs, kTileCols = kTileVecs * kLanes;
constexpr int kWindow = 16;
#include PYOPS_AHEAD
#include "cpu/int8_gemm/dot_tiles.inl.h"
#include "cpu/int8_sparse_gemm/windows_tile.inl.h"
#include "cpu/int8_sparse_gemm/panel_run.inl.h"
}  // namespace windows16
