// The entry points of a kernel file, in its namespace `masked`.

void turn(const TokenBlock& block) { turn_block(block); }
void multiply(const MaskedProducts& products) { multiply_chunk(products); }
void finish(const MaskedGrad& grad) { finish_section(grad); }
