// Runs every int8_sparse_gemm kernel that this CPU has on random problems, without torch or Python,
// so that it can run under sanitizers and on emulated CPUs: codes, against exact sums.
//
//   int8_sparse_gemm_driver [--cases N] [--seed N]
#include "cpu/int8_sparse_gemm/int8_sparse_gemm.h"
#include "cpu/sparse_gemm/sparse_gemm.h"
#include "run_kernels.h"
#include "sparse_cases.h"

namespace {

int failures = 0;

void one_case(const SparseGemmKernel& kernel) { failures += sparse_case(kernel, true); }

}  // namespace

int main(int argc, char** argv) {
  return run_kernels<SparseGemmKernel>(int8_sparse_gemm_kernels, one_case, failures, argc, argv);
}
