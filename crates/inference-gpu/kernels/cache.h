// Where the cache holds column 0 of a head: blocks of `block` tokens, each [kv_heads, block, width].
DEV u64 slot(const u32 *table, u32 position, u32 block, u32 kv_heads, u32 head, u32 width) {
  return (((u64)table[position / block] * kv_heads + head) * block + position % block) * width;
}
