// What a device can do at best: copying its memory, and products of tiles that never leave the registers.

// y = x: 1024 vectors of 16 bytes a block.
KERNEL(256) copy(u32x4 *y, const u32x4 *x) {
  u64 at = (u64)BID_X * 1024 + TID;
  u32x4 v[4];
  UNROLL for (u32 i = 0; i < 4; i++) v[i] = x[at + 256 * i];
  UNROLL for (u32 i = 0; i < 4; i++) y[at + 256 * i] = v[i];
}

// y[thread] is the sum of what the lane holds of PRODUCTS tiles of sums, to each of which the product of the tiles at x is
// added `rounds` times. The sums begin with different numbers, so that none is taken for another, and none waits for another.
#define PRODUCTS 8
KERNEL(128) tile_products(float *y, const u16 *x, u32 rounds) {
  alignas(16) SHARED u16 tiles[2 * 16 * 16];
  UNROLL for (u32 i = 0; i < 4; i++) tiles[TID + 128 * i] = x[TID + 128 * i];
  sync_block();
  Operand a = operand(tiles, 16), b = operand(tiles + 256, 16);
  Sums c[PRODUCTS];
  UNROLL for (int k = 0; k < PRODUCTS; k++)
    UNROLL for (int i = 0; i < 256 / WAVE; i++) c[k].v[i] = (float)k;
  ONE_BY_ONE for (u32 r = 0; r < rounds; r++)
    UNROLL for (int k = 0; k < PRODUCTS; k++) multiply<BF16>(c[k], a, b);
  float sum = 0;
  UNROLL for (int k = 0; k < PRODUCTS; k++)
    UNROLL for (int i = 0; i < 256 / WAVE; i++) sum += c[k].v[i];
  y[(u64)BID_X * 128 + TID] = sum;
}
