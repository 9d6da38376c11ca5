// How kernels read a section's bytes.

// Copies, so that nothing has to be aligned.
template <class T>
inline T read(const char* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

// Where x of an item's entry i begins.
inline const char* row_of(const char* x, uint64_t at, int i) {
  return x + ((at >> (16 * i)) & 0xffff);
}
