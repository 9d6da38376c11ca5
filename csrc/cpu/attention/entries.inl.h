// What the table calls, by attend_part of the kernel file. Include behind its anonymous namespace.

int64_t scratch_bytes(const AttentionProblem& p) { return scratch_of(p, kShape).bytes; }
int64_t blocks(const AttentionProblem& p) { return count_blocks(p); }
void attend(const AttentionProblem& p, int64_t begin, int64_t end, void* scratch) {
  attend_part(p, begin, end, static_cast<char*>(scratch));
}
