// Runs every attention kernel that this CPU has on random problems, without torch or Python, so
// that it can run under sanitizers and on emulated CPUs.
//
//   attention_driver [--cases N] [--seed N]
//
// Results are compared with double; buffers end (or begin) at an unmapped page.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "cpu/attention/attention.h"
#include "guarded.h"
#include "run_kernels.h"

using namespace pyops::cpu;

namespace {

int failures = 0;

// Values, of which a tensor of `type` holds the rounded ones.
std::vector<float> fill(const Guarded<char>& to, Dtype type, int64_t count) {
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) {
    from_float(uniform_float(2.0f), type, to.get(), i);
    values[i] = to_float(to.get(), type, i);
  }
  return values;
}

// Row r of batch b by the formula: [depth] values.
std::vector<double> reference(const AttentionProblem& p, const std::vector<float>& q,
                              const std::vector<float>& k, const std::vector<float>& v, int64_t b,
                              int64_t h, int64_t t) {
  const int64_t kv = h / (p.heads / p.kv_heads), d = p.depth;
  std::vector<double> weight(p.keys), out(d, 0.0);
  double best = -INFINITY, sum = 0.0;
  for (int64_t j = 0; j < p.keys; ++j) {
    double s = 0.0;
    for (int64_t i = 0; i < d; ++i) {
      s += double(q[((b * p.queries + t) * p.heads + h) * d + i]) *
           k[((b * p.keys + j) * p.kv_heads + kv) * d + i];
    }
    weight[j] = s * p.scale;
    if (p.mask) weight[j] += static_cast<const float*>(p.mask)[t * p.keys + j];
    if (p.causal && j > t) weight[j] = -INFINITY;
    best = std::fmax(best, weight[j]);
  }
  if (best == -INFINITY) return out;
  for (double& w : weight) sum += w = std::exp(w - best);
  for (int64_t j = 0; j < p.keys; ++j) {
    for (int64_t i = 0; i < d; ++i) {
      out[i] += weight[j] / sum * v[((b * p.keys + j) * p.kv_heads + kv) * d + i];
    }
  }
  return out;
}

void one_case(const AttentionKernel& kernel) {
  AttentionProblem p = {};
  p.type = kernel.products == Products::bf16 ? Dtype::bf16 : static_cast<Dtype>(uniform(0, 2));
  p.batch = uniform(1, 2), p.kv_heads = uniform(1, 2), p.heads = p.kv_heads * uniform(1, 2);
  p.queries = size_up_to(40), p.keys = coin() ? size_up_to(90) : uniform(500, 530);
  p.depth = size_up_to(70), p.scale = uniform_float(0.5f), p.causal = coin();
  const int64_t width = dtype_bytes(p.type), d = p.depth;
  const int64_t q_count = p.batch * p.queries * p.heads * d;
  const int64_t k_count = p.batch * p.keys * p.kv_heads * d;
  const Guarded<char> q(q_count * width, width), k(k_count * width, width),
      v(k_count * width, width), out(q_count * width, width);
  const std::vector<float> qs = fill(q, p.type, q_count), ks = fill(k, p.type, k_count),
                           vs = fill(v, p.type, k_count);
  const Guarded<float> mask(p.queries * p.keys);
  p.q = q.get(), p.k = k.get(), p.v = v.get(), p.out = out.get();
  for (int i = 0; i < 3; ++i) {
    const int64_t token_at = i == 0 ? p.queries : 1;
    p.q_stride[i] = i == 1 ? d : token_at * p.heads * d;
    p.k_stride[i] = p.v_stride[i] = i == 1 ? d : (i == 0 ? p.keys : 1) * p.kv_heads * d;
  }
  if (coin() || !(p.scale > 0.0f)) {
    for (int64_t i = 0; i < mask.count(); ++i) mask[i] = uniform(0, 4) ? 0.5f : -INFINITY;
    p.mask = mask.get(), p.mask_type = MaskType::f32;
    p.mask_stride[2] = p.keys, p.mask_stride[3] = 1;
  }
  const Guarded<char> scratch(kernel.scratch_bytes(p), 64);
  std::memset(scratch.get(), 0xff, scratch.count());  // NaN in every format
  const int64_t blocks = kernel.blocks(p), cut = uniform(0, blocks);
  kernel.attend(p, 0, cut, scratch.get());
  kernel.attend(p, cut, blocks, scratch.get());
  // Scores stay below 2 * 2 * 70 / 2, values below 2: see pyops/testing/cases/attention.py.
  const double bound = p.type == Dtype::f32 ? 2e-3 : 5e-2;
  for (int64_t r = 0; r < p.batch * p.queries * p.heads; ++r) {
    const int64_t h = r % p.heads, t = r / p.heads % p.queries, b = r / p.heads / p.queries;
    const std::vector<double> want = reference(p, qs, ks, vs, b, h, t);
    for (int64_t i = 0; i < d; ++i) {
      const double got = to_float(out.get(), p.type, r * d + i);
      if (std::fabs(got - want[i]) <= bound) continue;
      ++failures;
      std::printf("FAIL %s: type %d B %ld H %ld/%ld %ldx%ldx%ld causal %d: %g, not %g\n",
                  kernel.name, static_cast<int>(p.type), p.batch, p.heads, p.kv_heads, p.queries,
                  p.keys, d, p.causal, got, want[i]);
      return;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  return run_kernels<AttentionKernel>(attention_kernels, one_case, failures, argc, argv);
}
