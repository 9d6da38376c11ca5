// The entry points of a level that multiplies panels.

void int8_sparse_quads(const Int8GemmBlock& b) { quads::block_of_panels(b); }
void int8_sparse_windows8(const Int8GemmBlock& b) { windows8::block_of_panels(b); }
void int8_sparse_windows16(const Int8GemmBlock& b) { windows16::block_of_panels(b); }
