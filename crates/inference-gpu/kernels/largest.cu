// The largest numbers of rows, of equal ones those in lower columns: a block for each part of a row, then one for each row, which
// merges what its parts have found.

#define OF_THREAD 8u
#define PART (256u * OF_THREAD)

// Orders as the number does, -0 as 0, above 0, which stands for none; NaN and +inf are above all.
DEV u32 rank(float f) {
  u32 u = f_bits(f), size = u & 0x7fffffffu;
  if (size > 0x7f800000u || u == 0x7f800000u) return ~0u;
  if (size == 0) u = 0;
  return u >> 31 ? ~u : u | 0x80000000u;
}
DEV float of_rank(u32 r) { return bits_f(r >> 31 ? r & 0x7fffffffu : ~r); }

// The largest value of a block. Rounds take turns with the halves of `part`, so one barrier is enough.
DEV u64 block_most(u64 v, u64 *part, u32 round) {
  UNROLL for (u32 m = WAVE / 2; m; m >>= 1) {
    u32 high = f_bits(shfl_xor(bits_f((u32)(v >> 32)), m)), low = f_bits(shfl_xor(bits_f((u32)v), m));
    u64 other = (u64)high << 32 | low;
    v = other > v ? other : v;
  }
  part += round % 2 * (256 / WAVE);
  if (TID % WAVE == 0) part[TID / WAVE] = v;
  sync_block();
  for (u32 w = 0; w < 256 / WAVE; w++) v = part[w] > v ? part[w] : v;
  return v;
}

// found[row, part]: the k largest of a part, ranks and what columns lack to 2^32 - 1.
KERNEL(256) largest_of_parts(u64 *found, const float *x, u32 stride, u32 columns, u32 parts, u32 k) {
  SHARED u64 best[2 * 256 / WAVE];
  u64 mine[OF_THREAD];
  const float *row = x + (u64)BID_Y * stride;
  UNROLL for (u32 i = 0; i < OF_THREAD; i++) {
    u32 c = BID_X * PART + i * 256 + TID;
    mine[i] = c < columns ? (u64)rank(row[c]) << 32 | ~c : 0;
  }
  u64 *to = found + ((u64)BID_Y * parts + BID_X) * k;
  for (u32 n = 0; n < k; n++) {
    u64 most = 0;
    UNROLL for (u32 i = 0; i < OF_THREAD; i++) most = mine[i] > most ? mine[i] : most;
    most = block_most(most, best, n);
    if (TID == 0) to[n] = most;
    UNROLL for (u32 i = 0; i < OF_THREAD; i++)
      if (mine[i] == most) mine[i] = 0;
  }
}

// The k largest of a row, of up to 256 parts: columns and numbers, [rows, k] each. Numbers are NaN where the row has NaN or +inf.
KERNEL(256) largest_of_rows(u32 *columns, float *numbers, const u64 *found, u32 parts, u32 k) {
  SHARED u64 best[2 * 256 / WAVE];
  const u64 *list = found + ((u64)BID_X * parts + min_u(TID, parts - 1)) * k;
  u64 mine = TID < parts ? list[0] : 0;
  bool sound = true;
  u32 at = 0;
  for (u32 n = 0; n < k; n++) {
    u64 most = block_most(mine, best, n);
    u32 r = (u32)(most >> 32);
    sound = sound && r != ~0u;
    if (TID == 0) {
      columns[(u64)BID_X * k + n] = ~(u32)most;
      numbers[(u64)BID_X * k + n] = sound ? of_rank(r) : bits_f(0x7fc00000u);
    }
    if (mine == most && most) mine = ++at < k ? list[at] : 0;
  }
}
