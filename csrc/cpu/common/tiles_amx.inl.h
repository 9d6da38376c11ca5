// The configuration of AMX: tiles 0 to 5 of `rows` rows, 6 and 7 of 16, all of 64 bytes a row.
inline void configure_tiles(int rows = 16) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  for (int t = 0; t < 6; ++t) config.rows[t] = static_cast<uint8_t>(rows);
  // Not _tile_loadconfig: gcc 12 declares that it reads 8 of the 64 bytes, and may drop the stores
  // to the others.
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
}
