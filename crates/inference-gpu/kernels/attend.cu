// Attention of single queries over the pages of the cache, all query heads of a key head together. The keys of a sequence are cut
// into splits of SPLIT, whose borders are places in the sequence: a block for each token, key head and split. The last block to end
// merges the splits, in order, so that the bits of a token depend on its own sequence alone.

#define SPLIT 256u
#define GROUP 8u
#define WIDEST 256u

template <int T> DEV void cache8(const void *p, u64 at, float *out) {
  if (T == F32) {
    const f32x4 *v = (const f32x4 *)((const float *)p + at);
    f32x4 a = v[0], b = v[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    return;
  }
  u32x4 v = *(const u32x4 *)((const u16 *)p + at);
  const u32 words[4] = {v.x, v.y, v.z, v.w};
  UNROLL for (int i = 0; i < 4; i++) {
    out[2 * i] = from16<T>((u16)words[i]);
    out[2 * i + 1] = from16<T>((u16)(words[i] >> 16));
  }
}

// Merges `splits` results of a head, [splits, width + 2], the last two of which are the largest score and the sum.
DEV void merge(float *y, const float *partial, u32 splits, u32 dim, u32 width) {
  for (u32 c = TID; c < dim; c += 128) {
    float most = partial[width];
    for (u32 s = 1; s < splits; s++) most = max_f(most, partial[s * (width + 2) + width]);
    float sum = 0, weight = 0;
    for (u32 s = 0; s < splits; s++) {
      const float *p = partial + s * (width + 2);
      float f = exp_f(p[width] - most);
      sum += f * p[c];
      weight += f * p[width + 1];
    }
    y[c] = sum / weight;
  }
}

template <int T>
DEV void attend(float *y, float *partial, u32 *counters, const float *q, const void *keys, const void *values, const u32 *positions,
                const u32 *sequences, const u32 *tables, u32 table_len, u32 row0, u32 splits, u32 heads, u32 kv_heads, u32 dim,
                u32 width, u32 block, float scale, float cap, u32 window) {
  SHARED float queries[GROUP * WIDEST];
  SHARED float scores[GROUP * SPLIT];
  SHARED float part[128 * 2 * GROUP];
  SHARED float most[GROUP], total[GROUP];
  SHARED u32 ended;
  u32 row = row0 + BID_X, of_key = heads / kv_heads, chunks = (of_key + GROUP - 1) / GROUP;
  u32 kv_head = BID_Y / chunks, head0 = kv_head * of_key + BID_Y % chunks * GROUP;
  u32 count = min_u(GROUP, (kv_head + 1) * of_key - head0);
  u32 position = positions[row], oldest = window && position >= window ? position + 1 - window : 0;
  u32 first_split = oldest / SPLIT, own_splits = position / SPLIT - first_split + 1;
  if (BID_Z >= own_splits) return;
  u32 start = (first_split + BID_Z) * SPLIT, low = oldest > start ? oldest : start;
  u32 high = min_u(position + 1, start + SPLIT), n = high - low;
  const u32 *table = tables + (u64)sequences[row] * table_len;

  for (u32 i = TID; i < GROUP * width; i += 128) {
    u32 g = i / width, c = i % width;
    queries[i] = g < count && c < dim ? q[((u64)row * heads + head0 + g) * dim + c] * scale : 0.0f;
  }
  sync_block();
  // A thread for each key.
  for (u32 j = TID; j < n; j += 128) {
    u64 at = slot(table, low + j, block, kv_heads, kv_head, width);
    float s[GROUP];
    UNROLL for (u32 g = 0; g < GROUP; g++) s[g] = 0;
    for (u32 c = 0; c < width; c += 8) {
      float k[8];
      cache8<T>(keys, at + c, k);
      UNROLL for (u32 g = 0; g < GROUP; g++)
        if (g < count) {
          UNROLL for (u32 i = 0; i < 8; i++) s[g] += queries[g * width + c + i] * k[i];
        }
    }
    UNROLL for (u32 g = 0; g < GROUP; g++)
      if (g < count) scores[g * SPLIT + j] = cap > 0 ? cap * tanh_f(s[g] / cap) : s[g];
  }
  sync_block();
  // A wave for each head: the softmax of this split.
  for (u32 g = TID / WAVE; g < count; g += 128 / WAVE) {
    float m = -3.0e38f, sum = 0;
    for (u32 j = TID % WAVE; j < n; j += WAVE) m = max_f(m, scores[g * SPLIT + j]);
    m = wave_max(m);
    for (u32 j = TID % WAVE; j < n; j += WAVE) {
      float p = exp_f(scores[g * SPLIT + j] - m);
      scores[g * SPLIT + j] = p;
      sum += p;
    }
    sum = wave_sum(sum);
    if (TID % WAVE == 0) most[g] = m, total[g] = sum;
  }
  sync_block();
  // Threads along pairs of columns, several rows of them where the head is narrow; each row of threads takes every `lines`-th key.
  u32 across = width / 2, lines = 128 / across, line = TID / across, c = TID % across * 2;
  float o[GROUP][2];
  UNROLL for (u32 g = 0; g < GROUP; g++) o[g][0] = o[g][1] = 0;
  if (line < lines) {
    // The keys of a thread are the same places whatever is seen of the split.
    for (u32 t = start + line; t < high; t += lines) {
      if (t < low) continue;
      u64 at = slot(table, t, block, kv_heads, kv_head, width) + c;
      float v0, v1;
      if (T == F32) {
        v0 = ((const float *)values)[at], v1 = ((const float *)values)[at + 1];
      } else {
        u32 pair = *(const u32 *)((const u16 *)values + at);
        v0 = from16<T>((u16)pair), v1 = from16<T>((u16)(pair >> 16));
      }
      UNROLL for (u32 g = 0; g < GROUP; g++)
        if (g < count) {
          float p = scores[g * SPLIT + t - low];
          o[g][0] += p * v0, o[g][1] += p * v1;
        }
    }
    UNROLL for (u32 g = 0; g < GROUP; g++) {
      part[(line * GROUP + g) * width + c] = o[g][0];
      part[(line * GROUP + g) * width + c + 1] = o[g][1];
    }
  }
  sync_block();
  for (u32 i = TID; i < count * width; i += 128) {
    u32 g = i / width, col = i % width;
    float sum = 0;
    for (u32 l = 0; l < lines; l++) sum += part[(l * GROUP + g) * width + col];
    u64 head = (u64)row * heads + head0 + g;
    if (own_splits == 1) {
      if (col < dim) y[head * dim + col] = sum / total[g];
    } else {
      float *p = partial + (((u64)BID_X * heads + head0 + g) * splits + BID_Z) * (width + 2);
      p[col] = sum;
      if (col == 0) p[width] = most[g], p[width + 1] = total[g];
    }
  }
  if (own_splits == 1) return;
  fence_device();
  sync_block();
  u32 *counter = counters + (u64)row * heads + head0;
  if (TID == 0) ended = atomic_inc(counter);
  sync_block();
  if (ended + 1 != own_splits) return;
  fence_device();
  if (TID == 0) *counter = 0;
  for (u32 g = 0; g < count; g++)
    merge(y + ((u64)row * heads + head0 + g) * dim, partial + ((u64)BID_X * heads + head0 + g) * splits * (width + 2), own_splits, dim,
          width);
}

#define ATTEND(name, T)                                                                                                       \
  KERNEL(128) name(float *y, float *partial, u32 *counters, const float *q, const void *keys, const void *values,             \
                   const u32 *positions, const u32 *sequences, const u32 *tables, u32 table_len, u32 row0, u32 splits,        \
                   u32 heads, u32 kv_heads, u32 dim, u32 width, u32 block, float scale, float cap, u32 window) {              \
    attend<T>(y, partial, counters, q, keys, values, positions, sequences, tables, table_len, row0, splits, heads, kv_heads,  \
              dim, width, block, scale, cap, window);                                                                         \
  }
ATTEND(attend_f32, F32)
ATTEND(attend_f16, F16)
ATTEND(attend_bf16, BF16)
