// y = x·Wᵀ for many rows: a block of waves computes ROWS x COLS outputs, tile by tile. x is narrow: 16-bit numbers
// [rows, stride], each row to be multiplied by scale[r]. A sum runs along the columns in one order, whatever else is in the step.
// The next piece of both operands is fetched into registers while this one is multiplied.

#define DEPTH 32u         // columns at a time
#define PITCH (DEPTH + 8)  // numbers between rows in shared memory, so that they lie in different banks

// A block of ROWS x COLS outputs by DOWN x ACROSS waves. A wave has an even number of tiles across: with a gate the second half
// of them are the rows of W that are n further.
template <int ROWS, int COLS, int DOWN, int ACROSS> struct Shape {
  static constexpr u32 rows = ROWS, cols = COLS, threads = DOWN * ACROSS * WAVE, across = ACROSS;
  static constexpr u32 down_tiles = ROWS / DOWN / 16, across_tiles = COLS / ACROSS / 16;
};

// Row of W for column c of the block.
template <class S> DEV u32 weight_row(u32 block, u32 c, u32 n, int mode) {
  const u32 wide = 16 * S::across_tiles, half = wide / 2;
  if (mode < GATE_SILU) return min_u(block * S::cols + c, n - 1);
  u32 column = block * (S::cols / 2) + c / wide * half + c % half;
  return min_u(column, n - 1) + (c % wide < half ? 0 : n);
}

// W is a reader of 8 numbers: `w.fetch(row, k)` brings them from memory, `w.put(held, to)` writes them as 16-bit numbers.
template <int T, class S, class W>
DEV void product(u16 *shared, W w, float *y, const u16 *x, const float *scale, const float *bias, u32 rows, u32 stride, u32 n,
                 u32 y_stride, int mode) {
  u16 *a = shared, *b = shared + S::rows * PITCH;
  const u32 downs = (rows + S::rows - 1) / S::rows, row0 = BID_X % downs * S::rows, block = BID_X / downs;
  const u32 wave = TID / WAVE, down = wave / S::across * S::down_tiles, across = wave % S::across * S::across_tiles;
  constexpr u32 of_a = (S::rows * DEPTH / 8 + S::threads - 1) / S::threads, of_b = S::cols * DEPTH / W::NUMBERS / S::threads;
  u32x4 next_a[of_a];
  typename W::Held next_b[of_b];
  Sums sums[S::down_tiles][S::across_tiles];
  UNROLL for (u32 i = 0; i < S::down_tiles; i++) UNROLL for (u32 j = 0; j < S::across_tiles; j++) clear(sums[i][j]);

  auto fetch = [&](u32 k) {
    UNROLL for (u32 i = 0; i < of_a; i++) {
      u32 at = TID + i * S::threads, r = min_u(at / (DEPTH / 8) % S::rows + row0, rows - 1);
      next_a[i] = *(const u32x4 *)(x + (u64)r * stride + k + at % (DEPTH / 8) * 8);
    }
    UNROLL for (u32 i = 0; i < of_b; i++) {
      u32 at = TID + i * S::threads, part = DEPTH / W::NUMBERS;
      next_b[i] = w.fetch(weight_row<S>(block, at / part, n, mode), k + at % part * W::NUMBERS);
    }
  };
  fetch(0);
  for (u32 k = 0; k < stride; k += DEPTH) {
    sync_block();
    UNROLL for (u32 i = 0; i < of_a; i++) {
      u32 at = TID + i * S::threads;
      if (at < S::rows * (DEPTH / 8)) *(u32x4 *)(a + at / (DEPTH / 8) * PITCH + at % (DEPTH / 8) * 8) = next_a[i];
    }
    UNROLL for (u32 i = 0; i < of_b; i++) {
      u32 at = TID + i * S::threads, part = DEPTH / W::NUMBERS;
      w.put(next_b[i], b + at / part * PITCH + at % part * W::NUMBERS);
    }
    sync_block();
    if (k + DEPTH < stride) fetch(k + DEPTH);
    UNROLL for (u32 d = 0; d < DEPTH; d += 16) {
      Operand right[S::across_tiles];
      UNROLL for (u32 j = 0; j < S::across_tiles; j++) right[j] = operand(b + (across + j) * 16 * PITCH + d, PITCH);
      UNROLL for (u32 i = 0; i < S::down_tiles; i++) {
        Operand left = operand(a + (down + i) * 16 * PITCH + d, PITCH);
        UNROLL for (u32 j = 0; j < S::across_tiles; j++) multiply<T>(sums[i][j], left, right[j]);
      }
    }
  }

  const u32 lane = TID % WAVE, half = S::across_tiles / 2;
  UNROLL for (u32 i = 0; i < S::down_tiles; i++) UNROLL for (u32 e = 0; e < 256 / WAVE; e++) {
    u32 row = row0 + (down + i) * 16 + tile_row(lane, e);
    if (row >= rows) continue;
    float s = scale[row], *out = y + (u64)row * y_stride;
    UNROLL for (u32 j = 0; j < S::across_tiles; j++) {
      u32 col = tile_col(lane, e);
      if (mode >= GATE_SILU) {
        if (j >= half) continue;
        u32 c = block * (S::cols / 2) + across / 2 * 16 + j * 16 + col;
        if (c >= n) continue;
        float g = sums[i][j].v[e] * s, u = sums[i][j + half].v[e] * s;
        if (bias) g += bias[c], u += bias[c + n];
        out[c] = activated(g, mode - GATE_SILU + 1) * u;
      } else {
        u32 c = block * S::cols + (across + j) * 16 + col;
        if (c >= n) continue;
        float v = sums[i][j].v[e] * s + (bias ? bias[c] : 0.0f);
        out[c] = mode == ADD ? out[c] + v : v;
      }
    }
  }
}

#if WAVE == 32
typedef Shape<128, 128, 2, 4> Large;
typedef Shape<32, 64, 2, 2> Small;
#else
typedef Shape<128, 128, 2, 2> Large;
typedef Shape<32, 64, 1, 2> Small;
#endif
