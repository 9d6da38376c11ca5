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

// A large weight streams from memory: the next page has to be under way before the hardware sees it
// touched. Of short runs the loop's end would cost more than it gains.
constexpr int64_t kItemsAhead = 4096, kLongRun = 256;

inline void fetch_ahead(const char* items, const char* end) {
  if (end - items < kLongRun) return;
  for (; items < end; items += 64) __builtin_prefetch(items + kItemsAhead);
}
