// The entry points of a level.

void int8_sparse_tokens(const SparseTokens& task) { transpose_block(task); }
void int8_sparse_multiply(const SparseSection& task) { multiply_section(task); }
void int8_sparse_finish(const SparseSums& task) { finish_section(task); }
void int8_sparse_few_rows(const SparseFewRows& task) { few_rows_impl(task); }
