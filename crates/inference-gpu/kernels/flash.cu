// Attention of neighbouring tokens of a sequence, on matrix instructions, over a cache of 16-bit numbers: the softmax is taken as the
// keys come (https://arxiv.org/abs/2205.14135, https://arxiv.org/abs/2307.08691). A block for a tile of queries and a head; a wave
// has 16 queries. Borders between pieces of keys are places in the sequence, and a piece of which a query sees nothing leaves it as
// it is, so that the bits of a token depend on its own sequence alone.

#define LEAST (-3.0e38f)

// WIDTH columns of a head, WAVES waves, KEYS keys at a time.
template <int T, int WIDTH, int WAVES, int KEYS> struct Flash {
  static constexpr u32 wide = WIDTH + 8, deep = KEYS + 8;  // numbers between rows, so that they lie in different banks
  static constexpr u32 numbers = 16 * WAVES * wide + KEYS * wide + WIDTH * deep + 16 * WAVES * deep;

  DEV_METHOD static void run(u16 *shared, float *y, const float *q, const u16 *keys, const u16 *values, const u32 *tiles,
                             const u32 *positions, const u32 *sequences, const u32 *tables, u32 table_len, u32 heads, u32 kv_heads,
                             u32 dim, u32 width, u32 block, float scale, float cap, u32 window) {
    const u32 threads = WAVES * WAVE, wave = TID / WAVE, lane = TID % WAVE;
    u16 *queries = shared, *key = queries + 16 * WAVES * wide, *value = key + KEYS * wide;
    u16 *weights = value + WIDTH * deep + wave * 16 * deep;
    const u32 row0 = tiles[2 * BID_X], count = tiles[2 * BID_X + 1], head = BID_Y, kv_head = head / (heads / kv_heads);
    const u32 *table = tables + (u64)sequences[row0] * table_len;
    for (u32 i = TID; i < 16 * WAVES * WIDTH; i += threads) {
      u32 r = i / WIDTH, c = i % WIDTH;
      queries[r * wide + c] = r < count && c < dim ? to16<T>(q[((u64)(row0 + r) * heads + head) * dim + c]) : (u16)0;
    }
    u32 places[256 / WAVE];
    float most[256 / WAVE], total[256 / WAVE];
    UNROLL for (u32 i = 0; i < 256 / WAVE; i++) {
      places[i] = positions[row0 + min_u(wave * 16 + tile_row(lane, i), count - 1)];
      most[i] = LEAST, total[i] = 0;
    }
    Sums out[WIDTH / 16];
    UNROLL for (u32 d = 0; d < WIDTH / 16; d++) clear(out[d]);
    const u32 first = positions[row0], end = positions[row0 + count - 1] + 1;
    const u32 oldest = window && first >= window ? first + 1 - window : 0;

    for (u32 start = oldest / KEYS * KEYS; start < end; start += KEYS) {
      sync_block();
      for (u32 i = TID; i < KEYS * WIDTH / 8; i += threads) {
        u32 t = i / (WIDTH / 8), c = i % (WIDTH / 8) * 8;
        u32x4 k = {0, 0, 0, 0}, v = {0, 0, 0, 0};
        if (start + t < end && c < width) {
          u64 at = slot(table, start + t, block, kv_heads, kv_head, width) + c;
          k = *(const u32x4 *)(keys + at), v = *(const u32x4 *)(values + at);
        }
        *(u32x4 *)(key + t * wide + c) = k;
        const u32 words[4] = {v.x, v.y, v.z, v.w};
        UNROLL for (u32 j = 0; j < 8; j++) value[(c + j) * deep + t] = (u16)(words[j / 2] >> 16 * (j % 2));
      }
      sync_block();
      Sums score[KEYS / 16];
      UNROLL for (u32 j = 0; j < KEYS / 16; j++) clear(score[j]);
      ONE_BY_ONE for (u32 d = 0; d < WIDTH; d += 16) {
        Operand left = operand(queries + wave * 16 * wide + d, wide);
        UNROLL for (u32 j = 0; j < KEYS / 16; j++) multiply<T>(score[j], left, operand(key + j * 16 * wide + d, wide));
      }
      float row_most[256 / WAVE], row_total[256 / WAVE];
      UNROLL for (u32 i = 0; i < 256 / WAVE; i++) {
        row_most[i] = LEAST;
        UNROLL for (u32 j = 0; j < KEYS / 16; j++) {
          u32 t = start + j * 16 + tile_col(lane, i);
          float s = score[j].v[i] * scale;
          if (cap > 0) s = cap * tanh_f(s / cap);
          bool seen = t <= places[i] && (!window || t + window > places[i]);
          score[j].v[i] = s = seen ? s : LEAST;
          row_most[i] = max_f(row_most[i], s);
        }
      }
      along_rows<true>(row_most);
      UNROLL for (u32 i = 0; i < 256 / WAVE; i++) {
        float now = max_f(most[i], row_most[i]), shrink = exp_f(most[i] - now);
        row_total[i] = 0;
        UNROLL for (u32 j = 0; j < KEYS / 16; j++) {
          float p = score[j].v[i] <= LEAST ? 0.0f : exp_f(score[j].v[i] - now);
          row_total[i] += p;
          weights[tile_row(lane, i) * deep + j * 16 + tile_col(lane, i)] = to16<T>(p);
        }
        most[i] = now;
        total[i] *= shrink;
        UNROLL for (u32 d = 0; d < WIDTH / 16; d++) out[d].v[i] *= shrink;
      }
      along_rows<false>(row_total);
      UNROLL for (u32 i = 0; i < 256 / WAVE; i++) total[i] += row_total[i];
      sync_block();
      UNROLL for (u32 j = 0; j < KEYS / 16; j++) {
        Operand left = operand(weights + j * 16, deep);
        UNROLL for (u32 d = 0; d < WIDTH / 16; d++) {
          multiply<T>(out[d], left, operand(value + d * 16 * deep + j * 16, deep));
          if (d % 2) FETCH_NO_FURTHER();
        }
      }
    }
    UNROLL for (u32 i = 0; i < 256 / WAVE; i++) {
      u32 r = wave * 16 + tile_row(lane, i);
      if (r >= count) continue;
      float *to = y + ((u64)(row0 + r) * heads + head) * dim;
      UNROLL for (u32 d = 0; d < WIDTH / 16; d++) {
        u32 c = d * 16 + tile_col(lane, i);
        if (c < dim) to[c] = out[d].v[i] / total[i];
      }
    }
  }
};

#define FLASH(name, T, WIDTH, WAVES, KEYS)                                                                                     \
  KERNEL(256) name(float *y, const float *q, const u16 *keys, const u16 *values, const u32 *tiles,                    \
                            const u32 *positions, const u32 *sequences, const u32 *tables, u32 table_len, u32 heads,           \
                            u32 kv_heads, u32 dim, u32 width, u32 block, float scale, float cap, u32 window) {                 \
    alignas(16) SHARED u16 shared[Flash<T, WIDTH, WAVES, KEYS>::numbers];                                                      \
    Flash<T, WIDTH, WAVES, KEYS>::run(shared, y, q, keys, values, tiles, positions, sequences, tables, table_len, heads,       \
                                      kv_heads, dim, width, block, scale, cap, window);                                        \
  }
FLASH(flash_f16_64, F16, 64, 4, 32)
FLASH(flash_f16_128, F16, 128, 4, 32)
FLASH(flash_f16_256, F16, 256, 2, 16)
FLASH(flash_bf16_64, BF16, 64, 4, 32)
FLASH(flash_bf16_128, BF16, 128, 4, 32)
FLASH(flash_bf16_256, BF16, 256, 2, 16)
