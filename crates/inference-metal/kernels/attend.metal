// Attention of single queries over the pages of the cache, all query heads of a key head together. The keys of a sequence are cut
// into splits of SPLIT, whose borders are places in the sequence: a threadgroup for each token, key head and split. `merge` adds the
// splits up, in order, so that the bits of a token depend on its own sequence alone.

#define SPLIT 256u
#define HEADS 8u
#define WIDEST 256u
#define LEAST (-3.0e38f)

struct Attend {
  uint table_len, row0, splits, heads, kv_heads, dim, width, block;
  float scale, cap;
  uint window;
};

// The oldest position that a query sees.
static inline uint oldest_of(uint position, uint window) { return window && position >= window ? position + 1 - window : 0; }

// Eight columns of a key.
static inline void eight_of(device const float *p, thread float *out) {
  UNROLL for (uint i = 0; i < 2; i++) {
    const float4 v = ((device const float4 *)p)[i];
    out[4 * i] = v.x, out[4 * i + 1] = v.y, out[4 * i + 2] = v.z, out[4 * i + 3] = v.w;
  }
}
static inline void eight_of(device const ushort *p, thread float *out) {
  const uint4 v = *(device const uint4 *)p;
  const uint words[4] = {v.x, v.y, v.z, v.w};
  UNROLL for (uint i = 0; i < 4; i++) {
    out[2 * i] = from_bits<TYPE>((ushort)words[i]);
    out[2 * i + 1] = from_bits<TYPE>((ushort)(words[i] >> 16));
  }
}

// Two columns of a value.
static inline float2 two_of(device const float *p) { return *(device const float2 *)p; }
static inline float2 two_of(device const ushort *p) {
  const uint pair = *(device const uint *)p;
  return float2(from_bits<TYPE>((ushort)pair), from_bits<TYPE>((ushort)(pair >> 16)));
}

KERNEL(128) attend(device float *y [[buffer(0)]], device float *partial [[buffer(1)]], device const float *q [[buffer(2)]],
                   device const Stored *keys [[buffer(3)]], device const Stored *values [[buffer(4)]],
                   device const uint *positions [[buffer(5)]], device const uint *sequences [[buffer(6)]],
                   device const uint *tables [[buffer(7)]], constant Attend &a [[buffer(8)]], PLACE) {
  SHARED float queries[HEADS * WIDEST];
  SHARED float scores[HEADS * SPLIT];
  SHARED float part[128 * 2 * HEADS];
  SHARED float most[HEADS], total[HEADS];
  const uint thread_of = wave * WAVE + lane, row = a.row0 + group.x, of_key = a.heads / a.kv_heads;
  const uint chunks = (of_key + HEADS - 1) / HEADS, kv_head = group.y / chunks, head0 = kv_head * of_key + group.y % chunks * HEADS;
  const uint count = min(HEADS, (kv_head + 1) * of_key - head0);
  const uint position = positions[row], oldest = oldest_of(position, a.window);
  const uint first_split = oldest / SPLIT, own_splits = position / SPLIT - first_split + 1;
  if (group.z >= own_splits) return;
  const uint start = (first_split + group.z) * SPLIT, low = max(oldest, start), high = min(position + 1, start + SPLIT);
  const uint n = high - low;
  device const uint *table = tables + (ulong)sequences[row] * a.table_len;

  for (uint i = thread_of; i < HEADS * a.width; i += 128) {
    const uint g = i / a.width, c = i % a.width;
    queries[i] = g < count && c < a.dim ? q[((ulong)row * a.heads + head0 + g) * a.dim + c] * a.scale : 0.0f;
  }
  sync_group();
  // Eight neighbouring lanes for each key, so that they read its columns together.
  for (uint j0 = wave * 4; j0 < n; j0 += 16) {
    const uint j = j0 + lane / 8;
    float s[HEADS];
    UNROLL for (uint g = 0; g < HEADS; g++) s[g] = 0;
    if (j < n) {
      const ulong at = slot(table, low + j, a.block, a.kv_heads, kv_head, a.width);
      for (uint c = lane % 8 * 8; c < a.width; c += 64) {
        float k[8];
        eight_of(keys + at + c, k);
        UNROLL for (uint g = 0; g < HEADS; g++) {
          if (g < count) {
            UNROLL for (uint i = 0; i < 8; i++) s[g] = fma(queries[g * a.width + c + i], k[i], s[g]);
          }
        }
      }
    }
    UNROLL for (uint g = 0; g < HEADS; g++) {
      if (g >= count) continue;
      float sum = s[g];
      UNROLL for (ushort m = 4; m; m >>= 1) sum += simd_shuffle_xor(sum, m);
      if (j < n && lane % 8 == 0) scores[g * SPLIT + j] = a.cap > 0 ? a.cap * tanh_fast(sum / a.cap) : sum;
    }
  }
  sync_group();
  // A SIMD group for each head: the softmax of this split.
  for (uint g = wave; g < count; g += 4) {
    float m = LEAST, sum = 0;
    for (uint j = lane; j < n; j += WAVE) m = max(m, scores[g * SPLIT + j]);
    m = simd_max(m);
    for (uint j = lane; j < n; j += WAVE) {
      const float p = exp_fast(scores[g * SPLIT + j] - m);
      scores[g * SPLIT + j] = p;
      sum += p;
    }
    sum = simd_sum(sum);
    if (lane == 0) most[g] = m, total[g] = sum;
  }
  sync_group();
  // Threads along pairs of columns, several rows of them where the head is narrow; each row of threads takes every `lines`-th key.
  const uint across = a.width / 2, lines = 128 / across, line = thread_of / across, c = thread_of % across * 2;
  float o[HEADS][2];
  UNROLL for (uint g = 0; g < HEADS; g++) o[g][0] = o[g][1] = 0;
  if (line < lines) {
    // The keys of a thread are the same places whatever is seen of the split.
    for (uint t = start + line; t < high; t += lines) {
      if (t < low) continue;
      const ulong at = slot(table, t, a.block, a.kv_heads, kv_head, a.width) + c;
      const float2 v = two_of(values + at);
      UNROLL for (uint g = 0; g < HEADS; g++) {
        if (g < count) {
          const float p = scores[g * SPLIT + t - low];
          o[g][0] = fma(p, v.x, o[g][0]), o[g][1] = fma(p, v.y, o[g][1]);
        }
      }
    }
    UNROLL for (uint g = 0; g < HEADS; g++) {
      part[(line * HEADS + g) * a.width + c] = o[g][0];
      part[(line * HEADS + g) * a.width + c + 1] = o[g][1];
    }
  }
  sync_group();
  for (uint i = thread_of; i < count * a.width; i += 128) {
    const uint g = i / a.width, col = i % a.width, head = head0 + g;
    float sum = 0;
    for (uint l = 0; l < lines; l++) sum += part[(l * HEADS + g) * a.width + col];
    if (a.splits == 1) {
      if (col < a.dim) y[((ulong)row * a.heads + head) * a.dim + col] = sum / total[g];
    } else {
      device float *p = partial + (((ulong)group.x * a.heads + head) * a.splits + group.z) * (a.width + 2);
      p[col] = sum;
      if (col == 0) p[a.width] = most[g], p[a.width + 1] = total[g];
    }
  }
}

// Merges the splits of a head of a row, [splits, width + 2], the last two of which are the largest score and the sum.
KERNEL(128) merge(device float *y [[buffer(0)]], device const float *partial [[buffer(1)]], device const uint *positions [[buffer(2)]],
                  constant Attend &a [[buffer(3)]], PLACE) {
  const uint row = a.row0 + group.x, head = group.y, position = positions[row];
  const uint splits = position / SPLIT - oldest_of(position, a.window) / SPLIT + 1;
  device const float *parts = partial + ((ulong)group.x * a.heads + head) * a.splits * (a.width + 2);
  for (uint c = wave * WAVE + lane; c < a.dim; c += 128) {
    float most = parts[a.width], sum = 0, total = 0;
    for (uint s = 1; s < splits; s++) most = max(most, parts[s * (a.width + 2) + a.width]);
    for (uint s = 0; s < splits; s++) {
      device const float *p = parts + s * (a.width + 2);
      const float f = exp_fast(p[a.width] - most);
      sum = fma(f, p[c], sum);
      total = fma(f, p[a.width + 1], total);
    }
    y[((ulong)row * a.heads + head) * a.dim + c] = sum / total;
  }
}
