#include "cpu/isa.h"

#include <cstdlib>
#include <cstring>

#if PYOPS_X86
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace pyops::cpu {
namespace {

#if PYOPS_X86
bool cpuid_bit(unsigned leaf, unsigned subleaf, int reg, int bit_index) {
  unsigned r[4] = {0, 0, 0, 0};
  if (!__get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3])) return false;
  return (r[reg] >> bit_index) & 1;
}

// __builtin_cpu_supports also looks at what the OS saves on a context switch.
bool has_avx2() {
  const bool f16c = cpuid_bit(1, 0, 2, 29);
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
}
bool has_avxvnni() { return cpuid_bit(7, 1, 0, 4); }
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("bmi");
}
bool has_avx512vnni() { return __builtin_cpu_supports("avx512vnni"); }
bool has_avx512vbmi2() { return cpuid_bit(7, 0, 2, 6); }
bool has_avx512bf16() { return cpuid_bit(7, 1, 0, 5); }

// Linux gives a process the tile registers only when asked: ARCH_REQ_XCOMP_PERM, XTILEDATA.
bool has_amx() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  const bool present = cpuid_bit(7, 0, 3, 22) && cpuid_bit(7, 0, 3, 24) && cpuid_bit(7, 0, 3, 25);
  return present && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}
#endif

constexpr int kCount = static_cast<int>(Isa::count);

const char* const kNames[kCount] = {
#define PYOPS_ISA(name, includes, detected) #name,
#include "cpu/isa.inc"
#undef PYOPS_ISA
};

constexpr uint32_t kClosure[kCount] = {
#define PYOPS_ISA(name, includes, detected) ((includes) | bit(Isa::name)),
#include "cpu/isa.inc"
#undef PYOPS_ISA
};

uint32_t detect() {
#if PYOPS_X86
  __builtin_cpu_init();
#endif
  uint32_t found = 0;
#define PYOPS_ISA(name, includes, detected) \
  if (detected) found |= bit(Isa::name);
#include "cpu/isa.inc"
#undef PYOPS_ISA
  return found;
}

Isa highest(uint32_t bits) {
  int i = kCount - 1;
  while (i > 0 && !(bits & (1u << i))) --i;
  return static_cast<Isa>(i);
}

Isa cap_from_environment() {
  const char* name = std::getenv("PYOPS_MAX_ISA");
  const Isa top = highest(isa_detected());
  if (name == nullptr || *name == '\0') return top;
  Isa cap;
  return isa_from_name(name, &cap) ? cap : top;  // pyops/isa.py refuses an unknown name
}

std::atomic<Isa>& cap() {
  static std::atomic<Isa> value{cap_from_environment()};
  return value;
}

}  // namespace

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

bool isa_from_name(const char* name, Isa* isa) {
  for (int i = 0; i < kCount; ++i) {
    if (std::strcmp(name, kNames[i]) == 0) {
      *isa = static_cast<Isa>(i);
      return true;
    }
  }
  return false;
}

uint32_t isa_detected() {
  static const uint32_t found = detect();
  return found;
}

Isa isa_cap() { return cap().load(std::memory_order_relaxed); }
void set_isa_cap(Isa value) { cap().store(value, std::memory_order_relaxed); }
uint32_t isa_allowed() { return isa_detected() & kClosure[static_cast<int>(isa_cap())]; }
Isa isa_active() { return highest(isa_allowed()); }

KernelTable* KernelTable::first_ = nullptr;

KernelTable* KernelTable::find(const char* op) {
  for (KernelTable* table = first_; table != nullptr; table = table->next_) {
    if (std::strcmp(table->op_, op) == 0) return table;
  }
  return nullptr;
}

const KernelRow& KernelTable::best() const {
  if (const KernelRow* row = forced()) return *row;
  const uint32_t allowed = isa_allowed();
  int i = 0;
  while (i < count_ - 1 && (row(i).test_only || !(allowed & bit(row(i).isa)))) ++i;
  return row(i);  // the last row is generic, which is always allowed
}

const KernelRow* KernelTable::taking(const KernelRow& active, int nr, int kr, bool cut,
                                     int64_t rows) const {
  const auto same = [=](const KernelRow& row) {
    return row.nr == nr && row.kr == kr && row.cut == cut;
  };
  int at = 0;
  while (&row(at) != &active) ++at;
  if (active.cut && same(row(at + 1))) return &row(at + 1);
  if (!same(active)) return nullptr;
  if (rows >= active.min_rows || forced()) return &active;
  for (int i = 0; i < count_; ++i) {
    const bool usable = !row(i).test_only && (isa_allowed() & bit(row(i).isa));
    if (usable && same(row(i)) && rows >= row(i).min_rows) return &row(i);
  }
  return &active;
}

}  // namespace pyops::cpu
