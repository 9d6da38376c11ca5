// attend() of the kernels that multiply floats, whatever the tensors hold.
void attend_floats(const AttentionProblem& p, int64_t begin, int64_t end, char* scratch) {
  switch (p.type) {
    case Dtype::bf16: return attend_blocks<Floats<FromBf16>, FromBf16>(p, begin, end, scratch);
    case Dtype::f16: return attend_blocks<Floats<FromF16>, FromF16>(p, begin, end, scratch);
    default: return attend_blocks<Floats<FromF32>, FromF32>(p, begin, end, scratch);
  }
}
