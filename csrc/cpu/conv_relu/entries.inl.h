// The entry points of a level whose tiles are vectors of floats.

void conv_tile(const ConvTile& tile) {
  tile.list ? list_tile_of_vectors(tile) : tile_of_vectors(tile);
}
void conv_depthwise(const ConvDepthwise& task) { depthwise_of_vectors(task); }
void conv_gather(const ConvGather& gather) {
  gather.columns ? gather_columns(gather) : gather_floats(gather);
}
void conv_pool(const FloatWindow& window) { pool_of_vectors(window); }
void conv_winograd_input(const WinogradInput& input) { winograd_input(input); }
void conv_winograd_output(const WinogradOutput& output) { winograd_output(output); }
void conv_start() {}
void conv_stop() {}
