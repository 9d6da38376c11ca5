// Random numbers, and arrays between unmapped pages: one byte too far ends the program.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <random>

#include "cpu/common/half.h"
#include "cpu/common/types.h"

using pyops::cpu::Dtype;
using pyops::cpu::round_up;

inline std::mt19937_64 rng;
inline int64_t uniform(int64_t low, int64_t high) {
  return low + static_cast<int64_t>(rng() % (high - low + 1));
}
inline float uniform_float(float bound) {
  return bound * (static_cast<float>(uniform(-100000, 100000)) / 1e5f);
}
inline bool coin() { return rng() & 1; }

// Small sizes and the neighbours of powers of two, where tails begin.
inline int64_t size_up_to(int64_t limit) {
  if (coin()) return uniform(1, limit);
  const int64_t near = (int64_t{1} << uniform(0, 9)) + uniform(-1, 1);
  return near < 1 ? 1 : near > limit ? limit : near;
}

// An array with an unmapped page right behind it, or, every other time, right before it.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count, int64_t alignment = alignof(T)) : count_(count) {
    const int64_t page = sysconf(_SC_PAGESIZE), bytes = round_up(count * sizeof(T), alignment);
    mapped_ = round_up(bytes, page) + 2 * page;
    base_ =
        static_cast<char*>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED) std::abort();
    const int64_t usable = mapped_ - 2 * page;  // qemu refuses to protect nothing
    if (usable && mprotect(base_ + page, usable, PROT_READ | PROT_WRITE) != 0) std::abort();
    data_ = reinterpret_cast<T*>(coin() ? base_ + page : base_ + mapped_ - page - bytes);
  }
  Guarded(const Guarded&) = delete;
  ~Guarded() { munmap(base_, mapped_); }
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }
  int64_t count() const { return count_; }

 private:
  int64_t count_, mapped_;
  char* base_;
  T* data_;
};

inline float to_float(const void* p, Dtype type, int64_t i) {
  switch (type) {
    case Dtype::bf16: return pyops::cpu::bf16_to_float(static_cast<const uint16_t*>(p)[i]);
    case Dtype::f16: return pyops::cpu::f16_to_float(static_cast<const uint16_t*>(p)[i]);
    default: return static_cast<const float*>(p)[i];
  }
}

inline void from_float(float v, Dtype type, void* p, int64_t i) {
  switch (type) {
    case Dtype::bf16: static_cast<uint16_t*>(p)[i] = pyops::cpu::float_to_bf16(v); break;
    case Dtype::f16: static_cast<uint16_t*>(p)[i] = pyops::cpu::float_to_f16(v); break;
    default: static_cast<float*>(p)[i] = v; break;
  }
}
