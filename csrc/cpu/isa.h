// Instruction-set levels, and the choice of a kernel from a table.
//
//   allowed = detected on this CPU & included in the cap
//   best(table) = the forced row if any, else the first row, not test-only, whose level is allowed
#pragma once
#include <atomic>
#include <cstdint>

#include "cpu/target.h"

namespace pyops::cpu {

enum class Isa : int {
#define PYOPS_ISA(name, includes, detected) name,
#include "cpu/isa.inc"
#undef PYOPS_ISA
  count
};

constexpr uint32_t bit(Isa isa) { return 1u << static_cast<int>(isa); }

const char* isa_name(Isa isa);
bool isa_from_name(const char* name, Isa* isa);

uint32_t isa_detected();  // bits of the levels that this CPU and its OS can run
uint32_t isa_allowed();   // ... and that the cap lets through
Isa isa_active();         // the highest allowed level
Isa isa_cap();
void set_isa_cap(Isa cap);

// The head of every kernel struct, so that tables of different ops can be listed alike.
struct KernelRow {
  const char* name;
  Isa isa;
  bool test_only;    // reached by force() alone
  int nr, kr;        // packed layout: columns of a panel, and depth of its innermost group
  bool cut;          // packed layout: large weights are cut; the next row takes them whole
  int min_rows = 1;  // below it another kernel of the same layout is faster
};

// A table of kernels; tables chain themselves so that nothing else needs to list them.
class KernelTable {
 public:
  template <class Kernel, int kCount>
  KernelTable(const char* op, const Kernel (&rows)[kCount])
      : op_(op), rows_(rows), stride_(sizeof(Kernel)), count_(kCount), next_(first_) {
    first_ = this;
  }
  const char* op() const { return op_; }
  int count() const { return count_; }
  const KernelTable* next() const { return next_; }
  static KernelTable* find(const char* op);
  static const KernelTable* first() { return first_; }

  const KernelRow& row(int i) const {
    return *reinterpret_cast<const KernelRow*>(reinterpret_cast<const char*>(rows_) + i * stride_);
  }
  bool available(int i) const { return (isa_detected() & bit(row(i).isa)) != 0; }
  const KernelRow& best() const;
  // What runs on a weight of this layout and `rows` rows while `active` is the best: that, or with
  // few rows the next of its layout; for weights that it cannot cut the row behind it. Null: the
  // weight has to be packed again.
  const KernelRow* taking(const KernelRow& active, int nr, int kr, bool cut, int64_t rows) const;

  // Null: no row is forced. The caller makes sure that the CPU can run a row that it forces.
  const KernelRow* forced() const { return forced_.load(std::memory_order_relaxed); }
  void force(const KernelRow* row) { forced_.store(row, std::memory_order_relaxed); }

 private:
  const char* op_;
  const void* rows_;
  int64_t stride_;
  int count_;
  std::atomic<const KernelRow*> forced_{nullptr};
  KernelTable* next_;
  static KernelTable* first_;
};

template <class Kernel>
const Kernel& best(const KernelTable& table) {
  return static_cast<const Kernel&>(table.best());
}

}  // namespace pyops::cpu
