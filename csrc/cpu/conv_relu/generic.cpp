// 4 x 8 tile in plain C++, for any CPU.
#include "cpu/common/half.h"
#include "cpu/conv_relu/pack.h"

namespace pyops::cpu::generic {
namespace {

#include "cpu/common/vec_generic.inl.h"
#include "cpu/common/activation.inl.h"
#include "cpu/common/epilogue.inl.h"
#include "cpu/common/epilogue_float.inl.h"
#include "cpu/conv_relu/gather.inl.h"
#include "cpu/conv_relu/plain_tile.inl.h"
#include "cpu/conv_relu/plain_lists.inl.h"
#include "cpu/conv_relu/pool.inl.h"
#include "cpu/conv_relu/winograd.inl.h"

}  // namespace

void conv_tile(const ConvTile& tile) {
  tile.list ? plain_list_tile<4, 8>(tile) : plain_tile<4, 8>(tile);
}
void conv_depthwise(const ConvDepthwise& task) { plain_depthwise<8>(task); }
void conv_pool(const FloatWindow& window) { pool_of_vectors(window); }
void conv_winograd_input(const WinogradInput& input) { winograd_input(input); }
void conv_winograd_output(const WinogradOutput& output) { winograd_output(output); }
void conv_gather(const ConvGather& gather) {
  gather.columns ? plain_columns<4>(gather) : gather_floats(gather);
}
void conv_start() {}
void conv_stop() {}

}  // namespace pyops::cpu::generic
