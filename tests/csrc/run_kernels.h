// The program of a driver with one kind of case: --cases N --seed N, every kernel that this CPU
// has.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <string>

#include "cpu/isa.h"
#include "guarded.h"

template <class Kernel>
int run_kernels(const pyops::cpu::KernelTable& table, void (*one_case)(const Kernel&),
                const int& failures, int argc, char** argv) {
  int64_t cases = 100, seed = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--cases") cases = std::atoll(argv[i + 1]);
    if (flag == "--seed") seed = std::atoll(argv[i + 1]);
  }
  for (int i = 0; i < table.count(); ++i) {
    if (!table.available(i)) continue;
    const auto& kernel = static_cast<const Kernel&>(table.row(i));
    rng.seed(static_cast<uint64_t>(seed));
    for (int64_t c = 0; c < cases; ++c) one_case(kernel);
    std::printf("ran %s\n", kernel.name);
    std::fflush(stdout);
  }
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
