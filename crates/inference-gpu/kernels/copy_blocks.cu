// The first tokens of blocks of keys and of values, each [kv_heads, block, width], `head` words of a head and `row` words of a
// token: copies[3 i] is where they are, copies[3 i + 1] where they go, and copies[3 i + 2] how many tokens there are.
KERNEL(256) copy_blocks(u32 *keys, u32 *values, const u32 *copies, u32 count, u32 kv_heads, u32 head, u32 row) {
  u64 i = (u64)BID_X * 256 + TID;
  u64 block = (u64)kv_heads * head;
  if (i >= count * block) return;
  const u32 *copy = copies + i / block * 3;
  u64 at = i % block;
  if (at % head >= copy[2] * row) return;
  keys[copy[1] * block + at] = keys[copy[0] * block + at];
  values[copy[1] * block + at] = values[copy[0] * block + at];
}
