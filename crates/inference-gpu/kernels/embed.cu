// y[r] = scale · table[tokens[r]]; a block for each token.
KERNEL(256) embed(float *y, const void *table, const u32 *tokens, u32 cols, u32 stride, float scale, int type) {
  u64 from = (u64)tokens[BID_X] * stride, to = (u64)BID_X * cols;
  for (u32 i = TID; i < cols; i += 256) y[to + i] = scale * number(table, from + i, type);
}
