// Matrices of a few bits: w = q * scale + bias, with a scale and a bias for each group of columns. A row is a stream of bits;
// 32 numbers are `BITS` words, and rows are filled up to that.

// 16 numbers of `bits` bits, from an address of their own alignment.
template <int B> DEV void unpack16(const u16 *from, u32 *q) {
  u32 words[(B + 1) / 2];
  if (B == 8) {
    u32x4 v = *(const u32x4 *)from;
    words[0] = v.x, words[1 % ((B + 1) / 2)] = v.y, words[2 % ((B + 1) / 2)] = v.z, words[3 % ((B + 1) / 2)] = v.w;
  } else if (B == 4) {
    u32x2 v = *(const u32x2 *)from;
    words[0] = v.x, words[1 % ((B + 1) / 2)] = v.y;
  } else if (B % 2 == 0) {
    UNROLL for (int i = 0; i < B / 2; i++) words[i] = ((const u32 *)from)[i];
  } else {
    UNROLL for (int i = 0; i < (B + 1) / 2; i++) words[i] = from[2 * i] | (2 * i + 1 < B ? (u32)from[2 * i + 1] << 16 : 0u);
  }
  UNROLL for (int i = 0; i < 16; i++) {
    const int bit = i * B, word = bit / 32, shift = bit % 32;
    u32 v = words[word] >> shift;
    if (shift + B > 32) v |= words[word + 1 < (B + 1) / 2 ? word + 1 : word] << (32 - shift);
    q[i] = v & ((1u << B) - 1u);
  }
}

// Scale and bias of group i: pairs of f32, or of 16-bit numbers.
struct Group { float scale, bias; };
DEV Group group_of(const void *groups, u64 i, int type) {
  if (type == F32) return {((const float *)groups)[2 * i], ((const float *)groups)[2 * i + 1]};
  u32 pair = ((const u32 *)groups)[i];
  if (type == F16) return {h2f((u16)pair), h2f((u16)(pair >> 16))};
  return {b2f((u16)pair), b2f((u16)(pair >> 16))};
}
