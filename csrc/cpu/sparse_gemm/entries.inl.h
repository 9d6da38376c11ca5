// The entry points of a level with float products.

void sparse_tokens(const SparseTokens& task) { transpose_block(task); }
void sparse_multiply(const SparseSection& task) { multiply_section(task); }
void sparse_finish(const SparseSums& task) { finish_section(task); }
void sparse_few_rows(const SparseFewRows& task) { few_rows_impl(task); }
