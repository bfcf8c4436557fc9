// Matrices of a few bits: w = q * scale + bias, with a scale and a bias for each group of columns. A row is a stream of bits;
// 32 numbers are `BITS` words, and rows are filled up to that.

// 16 numbers of B bits as they are in memory, at a multiple of their size.
#define WORDS16(B) (((B) + 1) / 2)
template <int B> DEV void load16(const u16 *from, u32 *words) {
  if (B == 8) {
    u32x4 v = *(const u32x4 *)from;
    words[0] = v.x, words[1 % WORDS16(B)] = v.y, words[2 % WORDS16(B)] = v.z, words[3 % WORDS16(B)] = v.w;
  } else if (B == 4) {
    u32x2 v = *(const u32x2 *)from;
    words[0] = v.x, words[1 % WORDS16(B)] = v.y;
  } else if (B % 2 == 0) {
    UNROLL for (int i = 0; i < B / 2; i++) words[i] = ((const u32 *)from)[i];
  } else {
    UNROLL for (int i = 0; i < WORDS16(B); i++) words[i] = from[2 * i] | (2 * i + 1 < B ? (u32)from[2 * i + 1] << 16 : 0u);
  }
}
// Number i of them.
template <int B> DEV u32 number16(const u32 *words, int i) {
  const int bit = i * B, word = bit / 32, shift = bit % 32;
  u32 v = words[word] >> shift;
  if (shift + B > 32) v |= words[(word + 1) % WORDS16(B)] << (32 - shift);
  return v & ((1u << B) - 1u);
}
template <int B> DEV void unpack16(const u16 *from, u32 *q) {
  u32 words[WORDS16(B)];
  load16<B>(from, words);
  UNROLL for (int i = 0; i < 16; i++) q[i] = number16<B>(words, i);
}

// Scale and bias of group i: pairs of f32, or of 16-bit numbers.
struct Group { float scale, bias; };
DEV Group group_of(const void *groups, u64 i, int type) {
  if (type == F32) return {((const float *)groups)[2 * i], ((const float *)groups)[2 * i + 1]};
  u32 pair = ((const u32 *)groups)[i];
  if (type == F16) return {h2f((u16)pair), h2f((u16)(pair >> 16))};
  return {b2f((u16)pair), b2f((u16)(pair >> 16))};
}
