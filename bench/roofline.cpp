// Measures what this machine can do at best: instruction peaks and read bandwidth.
//
//   roofline THREADS   prints one JSON object per line: {"name", "unit", "value"} or
//                      {"name", "reason"} for what this CPU lacks.
//
// As a shared library it runs one of the instructions on request (run_peak), so that its rate can
// be taken between calls of a kernel.
//
// Kernels are straight-line inline assembly over independent registers, so that no compiler flag
// is needed, nothing spills, and the instruction is the only bottleneck. Builds for plain x86-64.

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

double now() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

struct Cpuid {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  Cpuid(uint32_t leaf, uint32_t subleaf) {
    __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx);
  }
};

bool bit(uint32_t word, int index) { return (word >> index) & 1; }

// Register state that the operating system saves (XCR0); 0 where it has not enabled XSAVE.
uint64_t saved_state() {
  if (!bit(Cpuid(1, 0).ecx, 27)) return 0;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

bool saves(uint64_t wanted) { return (saved_state() & wanted) == wanted; }

bool has_avx2() { return saves(0x6) && bit(Cpuid(7, 0).ebx, 5); }
bool has_fma() { return has_avx2() && bit(Cpuid(1, 0).ecx, 12); }
bool has_avx512() { return saves(0xe6) && bit(Cpuid(7, 0).ebx, 16); }
bool has_avx512bw() { return has_avx512() && bit(Cpuid(7, 0).ebx, 30); }
bool has_avx512vnni() { return has_avx512() && bit(Cpuid(7, 0).ecx, 11); }
bool has_evex_ymm_vnni() { return has_avx512vnni() && bit(Cpuid(7, 0).ebx, 31); }
bool has_avxvnni() { return has_avx2() && bit(Cpuid(7, 1).eax, 4); }
bool has_avx512bf16() { return has_avx512() && bit(Cpuid(7, 1).eax, 5); }

// Linux hands out the tile registers only to a process that asks.
bool has_amx() {
  if (!saves(0x60000) || !bit(Cpuid(7, 0).edx, 25)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#define CLOBBERS                                                                           \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory"

// The assembler repeats `op sources, zmmN` for N = 0..23: enough independent sums to hide latency.
// All registers start at zero, because denormal numbers would slow the float instructions down.
#define ZMM_LANES "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23"
#define ZMM_KERNEL(name, op)                                        \
  void name(int64_t n) {                                            \
    asm volatile(".irp lane," ZMM_LANES                             \
                 ",30,31\n\t"                                       \
                 "vpxord %%zmm\\lane, %%zmm\\lane, %%zmm\\lane\n\t" \
                 ".endr\n"                                          \
                 "1:\n\t"                                           \
                 ".irp lane," ZMM_LANES "\n\t" op                   \
                 " %%zmm30, %%zmm31, %%zmm\\lane\n\t"               \
                 ".endr\n\t"                                        \
                 "dec %0\n\tjnz 1b\n\tvzeroupper"                   \
                 : "+r"(n)::CLOBBERS);                              \
  }
#define YMM_KERNEL(name, op)                         \
  void name(int64_t n) {                             \
    asm volatile(                                    \
        "vzeroall\n"                                 \
        "1:\n\t"                                     \
        ".irp lane,0,1,2,3,4,5,6,7,8,9,10,11\n\t" op \
        " %%ymm14, %%ymm15, %%ymm\\lane\n\t"         \
        ".endr\n\t"                                  \
        "dec %0\n\tjnz 1b\n\tvzeroupper"             \
        : "+r"(n)::CLOBBERS);                        \
  }
ZMM_KERNEL(vpdpbusd_zmm, "vpdpbusd")
ZMM_KERNEL(vdpbf16ps_zmm, "vdpbf16ps")
ZMM_KERNEL(fma_zmm, "vfmadd231ps")
ZMM_KERNEL(vpmaddwd_zmm, "vpmaddwd")
YMM_KERNEL(vpdpbusd_ymm_evex, "%{evex%} vpdpbusd")
YMM_KERNEL(vpdpbusd_ymm_vex, "%{vex%} vpdpbusd")
YMM_KERNEL(vpmaddwd_ymm, "vpmaddwd")
YMM_KERNEL(fma_ymm, "vfmadd231ps")

// Four sums of two by two tiles: 16 rows of 64 bytes each.
void tdpbusd_amx(int64_t n) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  asm volatile(
      "ldtilecfg %1\n\ttilezero %%tmm4\n\ttilezero %%tmm5\n\ttilezero %%tmm6\n\ttilezero %%tmm7\n"
      "1:\n\ttdpbusd %%tmm6, %%tmm4, %%tmm0\n\ttdpbusd %%tmm7, %%tmm4, %%tmm1\n\t"
      "tdpbusd %%tmm6, %%tmm5, %%tmm2\n\ttdpbusd %%tmm7, %%tmm5, %%tmm3\n\t"
      "dec %0\n\tjnz 1b\n\ttilerelease"
      : "+r"(n)
      : "m"(config)
      : "cc");
}

// Seconds of the slowest of `threads` threads, this one among them, that all start `work(thread)`
// together.
template <class Work>
double seconds_of(int threads, const Work& work) {
  std::atomic<int> ready{0};
  std::vector<double> seconds(threads);
  const auto run = [&](int thread) {
    ++ready;
    while (ready < threads) {
    }
    const double start = now();
    work(thread);
    seconds[thread] = now() - start;
  };
  std::vector<std::thread> pool;
  for (int thread = 1; thread < threads; ++thread) pool.emplace_back(run, thread);
  run(0);
  for (auto& thread : pool) thread.join();
  return *std::max_element(seconds.begin(), seconds.end());
}

template <class Work>
double best_seconds(int threads, const Work& work) {
  double best = 1e9;
  for (int repeat = 0; repeat < 5; ++repeat) best = std::min(best, seconds_of(threads, work));
  return best;
}

constexpr double kRunSeconds = 0.02;

void print(const char* name, const char* unit, double value) {
  std::printf("{\"name\": \"%s\", \"unit\": \"%s\", \"value\": %.2f}\n", name, unit, value);
}

// One multiply-add counts as two operations; a zmm step holds 24 instructions, a ymm step 12.
struct Peak {
  const char* name;
  void (*kernel)(int64_t steps);
  bool present;
  double operations;  // of a step
};

// Looked up once: run_peak is timed, and asking a virtual CPU what it has takes long.
const std::vector<Peak>& peaks() {
  static const bool evex = has_evex_ymm_vnni();
  static const std::vector<Peak> all = {
      {"vpdpbusd_zmm", vpdpbusd_zmm, has_avx512vnni(), 24 * 128},
      {"vpdpbusd_ymm", evex ? vpdpbusd_ymm_evex : vpdpbusd_ymm_vex, evex || has_avxvnni(), 12 * 64},
      {"vpmaddwd_zmm", vpmaddwd_zmm, has_avx512bw(), 24 * 64},
      {"vpmaddwd_ymm", vpmaddwd_ymm, has_avx2(), 12 * 32},
      {"tdpbusd_amx", tdpbusd_amx, has_amx(), 4 * 32768},
      {"vdpbf16ps_zmm", vdpbf16ps_zmm, has_avx512bf16(), 24 * 64},
      {"fma_zmm", fma_zmm, has_avx512(), 24 * 32},
      {"fma_ymm", fma_ymm, has_fma(), 12 * 16},
  };
  return all;
}

void measure(const Peak& peak, int threads) {
  if (!peak.present) {
    std::printf("{\"name\": \"%s\", \"reason\": \"this CPU or system lacks it\"}\n", peak.name);
    return;
  }
  constexpr int64_t kProbe = 100000;
  const double probe = best_seconds(1, [&](int) { peak.kernel(kProbe); });
  const auto steps = static_cast<int64_t>(kProbe * kRunSeconds / probe) + 1;
  const double seconds = best_seconds(threads, [&](int) { peak.kernel(steps); });
  print(peak.name, "GOP/s", threads * peak.operations * steps / seconds / 1e9);
}

#define READ_KERNEL(name, move, reg, bytes)                                                        \
  void name(const char* from, const char* to) {                                                    \
    asm volatile("1:\n\t" move " (%0), %%" reg "0\n\t" move " " #bytes "(%0), %%" reg "1\n\t" move \
                 " 2*" #bytes "(%0), %%" reg "2\n\t" move " 3*" #bytes "(%0), %%" reg              \
                 "3\n\tadd $4*" #bytes ", %0\n\tcmp %1, %0\n\tjb 1b"                               \
                 : "+r"(from)                                                                      \
                 : "r"(to)                                                                         \
                 : CLOBBERS);                                                                      \
  }
READ_KERNEL(read_sse, "movups", "xmm", 16)
READ_KERNEL(read_avx, "vmovups", "ymm", 32)
READ_KERNEL(read_avx512, "vmovups", "zmm", 64)

void bandwidth(const char* name, size_t bytes, int threads) {
  const auto read = has_avx512() ? read_avx512 : has_avx2() ? read_avx : read_sse;
  bytes = std::max<size_t>(bytes / 4096, 1) * 4096;
  std::vector<char*> buffers;
  for (int thread = 0; thread < threads; ++thread) {
    buffers.push_back(static_cast<char*>(std::aligned_alloc(4096, bytes)));
    if (buffers.back() == nullptr) {
      std::printf("{\"name\": \"%s\", \"reason\": \"no memory for %zu bytes\"}\n", name, bytes);
      for (char* buffer : buffers) std::free(buffer);
      return;
    }
    std::memset(buffers.back(), 1, bytes);
  }
  const auto passes = [&](int count) {
    return [&, count](int thread) {
      for (int pass = 0; pass < count; ++pass) read(buffers[thread], buffers[thread] + bytes);
    };
  };
  const double once = best_seconds(1, passes(1));
  const int count = static_cast<int>(kRunSeconds / once) + 1;
  const double seconds = best_seconds(threads, passes(count));
  print(name, "GB/s", static_cast<double>(threads) * count * bytes / seconds / 1e9);
  for (char* buffer : buffers) std::free(buffer);
}

size_t cache_bytes(int name, size_t otherwise) {
  const long bytes = sysconf(name);
  return bytes > 0 ? static_cast<size_t>(bytes) : otherwise;
}

}  // namespace

// Runs the instruction `name` for about `operations` in all, on `threads` threads. Returns how many
// they were; 0 if this CPU or system lacks it, or there is none of the name.
extern "C" double run_peak(const char* name, int threads, double operations) {
  for (const Peak& peak : peaks()) {
    if (std::strcmp(peak.name, name) != 0 || !peak.present || threads < 1) continue;
    const auto steps = static_cast<int64_t>(operations / peak.operations / threads) + 1;
    seconds_of(threads, [&](int) { peak.kernel(steps); });
    return peak.operations * threads * static_cast<double>(steps);
  }
  return 0;
}

int main(int count, char** arguments) {
  const int threads = count > 1 ? std::atoi(arguments[1]) : 1;
  if (threads < 1) {
    std::fprintf(stderr, "roofline: threads must be at least 1, got %s\n", arguments[1]);
    return 2;
  }
  for (const Peak& peak : peaks()) measure(peak, threads);

  // Half of a level's cache per thread; for DRAM far more than the whole last level.
  const size_t l1 = cache_bytes(_SC_LEVEL1_DCACHE_SIZE, 32 << 10);
  const size_t l2 = cache_bytes(_SC_LEVEL2_CACHE_SIZE, 1 << 20);
  const size_t l3 = cache_bytes(_SC_LEVEL3_CACHE_SIZE, 32 << 20);
  print("cache_l1", "bytes", l1);
  print("cache_l2", "bytes", l2);
  print("cache_l3", "bytes", l3);
  bandwidth("read_l1", l1 / 2, threads);
  bandwidth("read_l2", l2 / 2, threads);
  bandwidth("read_l3", std::min(4 * l2, l3 / 2 / threads), threads);
  bandwidth("read_dram", std::max<size_t>(256u << 20, 4 * l3 / threads), threads);
}
