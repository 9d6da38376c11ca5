// Target regions: code between PYOPS_TARGET_BEGIN("avx2,...") and PYOPS_TARGET_END may use those
// instruction sets, whatever flags the file is compiled with.
//
// Per-file flags would let the compiler emit, say, AVX-512 into an inline function that baseline
// code shares, and the linker may keep that copy: SIGILL on older CPUs.
#pragma once

#if defined(__x86_64__)
#define PYOPS_X86 1
#else
#define PYOPS_X86 0
#endif

#define PYOPS_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define PYOPS_TARGET_BEGIN(isa) \
  PYOPS_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define PYOPS_TARGET_END _Pragma("clang attribute pop")
#define PYOPS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PYOPS_TARGET_BEGIN(isa) PYOPS_PRAGMA(GCC push_options) PYOPS_PRAGMA(GCC target(isa))
#define PYOPS_TARGET_END PYOPS_PRAGMA(GCC pop_options)
// gcc keeps an array of vectors in memory unless every loop over it is unrolled.
#define PYOPS_UNROLL _Pragma("GCC unroll 16")
#endif
