// A vector of a row's values of k, as floats. Include after epilogue.inl.h.

template <bool kWhole>
inline F32 column_values(const ConvGather& g, const void* row, int64_t d) {
  const int lanes = kWhole ? kLanes : static_cast<int>(min64(kLanes, g.depth - d));
  return load_float(row, g.type, g.offset + d, lanes);
}
