DEV void store(void *p, u64 i, float v, int type) {
  if (type == F32) ((float *)p)[i] = v;
  else ((u16 *)p)[i] = type == F16 ? f2h(v) : f2b(v);
}

// A wave for each head of a token: norms queries and keys (where there is a weight), rotates `pairs` pairs of their columns,
// writes queries to q and keys and values to the cache, there with zeros up to `width`.
KERNEL(128) append(float *q, void *keys, void *values, const float *qkv, const float *q_norm, const float *k_norm, const float *cos,
                   const float *sin, const u32 *positions, const u32 *sequences, const u32 *tables, u32 table_len, u32 rows, u32 heads,
                   u32 kv_heads, u32 dim, u32 width, u32 pairs, u32 block, float eps, int type) {
  u32 all = heads + 2 * kv_heads, wave = BID_X * (128 / WAVE) + TID / WAVE, lane = TID % WAVE;
  u32 row = wave / all, head = wave % all;
  if (row >= rows) return;
  const float *x = qkv + ((u64)row * all + head) * dim;
  bool is_query = head < heads, is_value = head >= heads + kv_heads;
  const float *weight = is_query ? q_norm : is_value ? (const float *)0 : k_norm;
  float scale = 1;
  if (weight) {
    float square = 0;
    for (u32 i = lane; i < dim; i += WAVE) square += x[i] * x[i];
    scale = rsqrt_f(wave_sum(square) / (float)dim + eps);
  }
  u32 kv_head = is_value ? head - heads - kv_heads : head - heads;
  u64 at = is_query ? ((u64)row * heads + head) * dim
                    : slot(tables + (u64)sequences[row] * table_len, positions[row], block, kv_heads, kv_head, width);
  u32 turned = is_value ? 0 : pairs;
  for (u32 i = lane; i < (is_query ? dim : width); i += WAVE) {
    float v = 0;
    if (i < dim) {
      v = x[i] * (weight ? scale * weight[i] : 1.0f);
      if (i < 2 * turned) {
        u32 pair = i < turned ? i : i - turned, other = i < turned ? i + turned : i - turned;
        float w = x[other] * (weight ? scale * weight[other] : 1.0f);
        float c = cos[(u64)row * pairs + pair], s = sin[(u64)row * pairs + pair];
        v = i < turned ? v * c - w * s : w * s + v * c;
      }
    }
    if (is_query) q[at + i] = v;
    else store(is_value ? values : keys, at + i, v, type);
  }
}
