// Attention of neighbouring tokens of a sequence, by tiles of 8 x 8, in f32: the softmax is taken as the keys come
// (https://arxiv.org/abs/2205.14135, https://arxiv.org/abs/2307.08691). A threadgroup for a tile of queries and a head; a SIMD group
// has 8 queries. Borders between pieces of keys are places in the sequence, and a piece of which a query sees nothing leaves it as it
// is, so that the bits of a token depend on its own sequence alone.
// Where a SIMD group's lanes hold the numbers of a matrix is not written down, so rows are scaled by a product with a diagonal one.

// WIDTH columns of a head, WAVES SIMD groups, KEYS keys at a time. In threadgroup memory: queries, keys or values, and for each SIMD
// group its scores and a diagonal.
#define FLASH_WIDE(WIDTH) (WIDTH + 4)  // numbers between rows, so that they lie in different banks
#define FLASH_DEEP(KEYS) (KEYS + 4)
#define FLASH_OF_WAVE(KEYS) (8 * FLASH_DEEP(KEYS) + 64)
#define FLASH_NUMBERS(WIDTH, WAVES, KEYS) ((8 * WAVES + KEYS) * FLASH_WIDE(WIDTH) + WAVES * FLASH_OF_WAVE(KEYS))

// Brings KEYS rows of the cache from `start` on; those that no query sees, and columns beyond the head, are 0.
template <int WIDTH, int WAVES, int KEYS>
static inline void bring(threadgroup float *to, device const Stored *from, device const uint *table, uint start, uint low, uint end,
                         uint kv_head, constant Attend &a, uint thread_of) {
  for (uint i = thread_of; i < KEYS * WIDTH / 8; i += WAVES * WAVE) {
    const uint t = i / (WIDTH / 8), c = i % (WIDTH / 8) * 8;
    float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (start + t >= low && start + t < end && c < a.width)
      eight_of(from + slot(table, start + t, a.block, a.kv_heads, kv_head, a.width) + c, v);
    UNROLL for (uint j = 0; j < 8; j++) to[t * FLASH_WIDE(WIDTH) + c + j] = v[j];
  }
}

template <int WIDTH, int WAVES, int KEYS>
static inline void flash(threadgroup float *shared, device float *y, device const float *q, device const Stored *keys,
                         device const Stored *values, device const uint *tiles, device const uint *positions,
                         device const uint *sequences, device const uint *tables, constant Attend &a, uint3 group, uint wave, uint lane) {
  const uint wide = FLASH_WIDE(WIDTH), deep = FLASH_DEEP(KEYS), thread_of = wave * WAVE + lane;
  threadgroup float *queries = shared, *piece = queries + 8 * WAVES * wide;
  threadgroup float *scores = piece + KEYS * wide + wave * FLASH_OF_WAVE(KEYS), *diagonal = scores + 8 * deep;
  const uint row0 = tiles[2 * group.x], count = tiles[2 * group.x + 1], head = group.y, kv_head = head / (a.heads / a.kv_heads);
  device const uint *table = tables + (ulong)sequences[row0] * a.table_len;
  for (uint i = thread_of; i < 8 * WAVES * WIDTH; i += WAVES * WAVE) {
    const uint r = i / WIDTH, c = i % WIDTH;
    queries[r * wide + c] = r < count && c < a.dim ? q[((ulong)(row0 + r) * a.heads + head) * a.dim + c] * a.scale : 0.0f;
  }
  diagonal[lane] = diagonal[lane + WAVE] = 0;
  // Four neighbouring lanes have a query: every fourth of its scores each.
  const uint mine = lane / 4, quarter = lane % 4;
  const uint place = positions[row0 + min(wave * 8 + mine, count - 1)];
  float most = LEAST, total = 0;
  simdgroup_float8x8 out[WIDTH / 8];
  UNROLL for (uint d = 0; d < WIDTH / 8; d++) out[d] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  const uint end = positions[row0 + count - 1] + 1, low = oldest_of(positions[row0], a.window);

  for (uint start = low / KEYS * KEYS; start < end; start += KEYS) {
    sync_group();
    bring<WIDTH, WAVES, KEYS>(piece, keys, table, start, low, end, kv_head, a, thread_of);
    sync_group();
    simdgroup_float8x8 score[KEYS / 8];
    UNROLL for (uint j = 0; j < KEYS / 8; j++) score[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    for (uint d = 0; d < WIDTH; d += 8) {
      simdgroup_float8x8 left, right;
      simdgroup_load(left, queries + wave * 8 * wide + d, wide, ulong2(0, 0), false);
      UNROLL for (uint j = 0; j < KEYS / 8; j++) {
        simdgroup_load(right, piece + j * 8 * wide + d, wide, ulong2(0, 0), true);
        simdgroup_multiply_accumulate(score[j], left, right, score[j]);
      }
    }
    UNROLL for (uint j = 0; j < KEYS / 8; j++) simdgroup_store(score[j], scores + 8 * j, deep, ulong2(0, 0), false);
    sync_group();
    bring<WIDTH, WAVES, KEYS>(piece, values, table, start, low, end, kv_head, a, thread_of);

    float own[KEYS / 4], now = LEAST, sum = 0;
    UNROLL for (uint j = 0; j < KEYS / 4; j++) {
      const uint t = start + 4 * j + quarter;
      float s = scores[mine * deep + 4 * j + quarter];
      if (a.cap > 0) s = a.cap * tanh_fast(s / a.cap);
      own[j] = t <= place && (!a.window || t + a.window > place) ? s : LEAST;
      now = max(now, own[j]);
    }
    now = max(now, simd_shuffle_xor(now, (ushort)1));
    now = max(most, max(now, simd_shuffle_xor(now, (ushort)2)));
    UNROLL for (uint j = 0; j < KEYS / 4; j++) {
      const float p = own[j] <= LEAST ? 0.0f : exp_fast(own[j] - now);
      sum += p;
      scores[mine * deep + 4 * j + quarter] = p;
    }
    sum += simd_shuffle_xor(sum, (ushort)1);
    sum += simd_shuffle_xor(sum, (ushort)2);
    const float shrink = exp_fast(most - now);
    total = fma(total, shrink, sum);
    most = now;
    if (quarter == 0) diagonal[9 * mine] = shrink;
    sync_group();
    simdgroup_float8x8 shrunk;
    simdgroup_load(shrunk, diagonal, 8, ulong2(0, 0), false);
    UNROLL for (uint d = 0; d < WIDTH / 8; d++) simdgroup_multiply(out[d], shrunk, out[d]);
    UNROLL for (uint j = 0; j < KEYS / 8; j++) {
      simdgroup_float8x8 left, right;
      simdgroup_load(left, scores + 8 * j, deep, ulong2(0, 0), false);
      UNROLL for (uint d = 0; d < WIDTH / 8; d++) {
        simdgroup_load(right, piece + j * 8 * wide + 8 * d, wide, ulong2(0, 0), false);
        simdgroup_multiply_accumulate(out[d], left, right, out[d]);
      }
    }
  }

  // Out by way of the queries' rows, of which each SIMD group has its own.
  sync_group();
  UNROLL for (uint d = 0; d < WIDTH / 8; d++) simdgroup_store(out[d], queries + wave * 8 * wide + 8 * d, wide, ulong2(0, 0), false);
  if (quarter == 0) diagonal[mine] = total;
  sync_group();
  for (uint i = lane; i < 8 * WIDTH; i += WAVE) {
    const uint r = i / WIDTH, c = i % WIDTH;
    if (wave * 8 + r >= count || c >= a.dim) continue;
    y[((ulong)(row0 + wave * 8 + r) * a.heads + head) * a.dim + c] = queries[(wave * 8 + r) * wide + c] / diagonal[r];
  }
}

#define FLASH(name, WIDTH, WAVES, KEYS)                                                                                       \
  KERNEL(128) name(device float *y [[buffer(0)]], device const float *q [[buffer(1)]], device const Stored *keys [[buffer(2)]], \
                   device const Stored *values [[buffer(3)]], device const uint *tiles [[buffer(4)]],                          \
                   device const uint *positions [[buffer(5)]], device const uint *sequences [[buffer(6)]],                     \
                   device const uint *tables [[buffer(7)]], constant Attend &a [[buffer(8)]], PLACE) {                         \
    SHARED float shared[FLASH_NUMBERS(WIDTH, WAVES, KEYS)];                                                                    \
    flash<WIDTH, WAVES, KEYS>(shared, y, q, keys, values, tiles, positions, sequences, tables, a, group, wave, lane);          \
  }
FLASH(flash_64, 64, 4, 32)
FLASH(flash_128, 128, 4, 16)
FLASH(flash_256, 256, 2, 8)
