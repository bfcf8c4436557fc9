typedef Number<TYPE>::Bits Stored;

// Where the cache holds column 0 of a head: blocks of `block` tokens, each [kv_heads, block, width].
static inline ulong slot(device const uint *table, uint position, uint block, uint kv_heads, uint head, uint width) {
  return (((ulong)table[position / block] * kv_heads + head) * block + position % block) * width;
}
