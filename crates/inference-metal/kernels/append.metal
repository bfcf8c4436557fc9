struct Append {
  uint table_len, rows, heads, kv_heads, dim, width, pairs, block;
  float eps;
  uint norms;  // 1: of queries, 2: of keys
};

// A SIMD group for each head of a token: norms queries and keys (where there is a weight), rotates `pairs` pairs of their columns,
// writes queries to q and keys and values to the cache, there with zeros up to `width`.
KERNEL(128) append(device float *q [[buffer(0)]], device Stored *keys [[buffer(1)]], device Stored *values [[buffer(2)]],
                   device const float *qkv [[buffer(3)]], device const float *q_norm [[buffer(4)]],
                   device const float *k_norm [[buffer(5)]], device const float *cosines [[buffer(6)]],
                   device const float *sines [[buffer(7)]], device const uint *positions [[buffer(8)]],
                   device const uint *sequences [[buffer(9)]], device const uint *tables [[buffer(10)]],
                   constant Append &a [[buffer(11)]], PLACE) {
  const uint all = a.heads + 2 * a.kv_heads, index = group.x * 4 + wave, row = index / all, head = index % all;
  if (row >= a.rows) return;
  device const float *x = qkv + (ulong)index * a.dim;
  const bool is_query = head < a.heads, is_value = head >= a.heads + a.kv_heads;
  const bool normed = is_query ? (a.norms & 1) != 0 : !is_value && (a.norms & 2) != 0;
  device const float *weight = is_query ? q_norm : k_norm;
  float scale = 1;
  if (normed) {
    float square = 0;
    for (uint i = lane; i < a.dim; i += WAVE) square = fma(x[i], x[i], square);
    scale = rsqrt(simd_sum(square) / (float)a.dim + a.eps);
  }
  const uint turned = is_value ? 0 : a.pairs, kv_head = is_value ? head - a.heads - a.kv_heads : head - a.heads;
  const ulong at = is_query ? ((ulong)row * a.heads + head) * a.dim
                            : slot(tables + (ulong)sequences[row] * a.table_len, positions[row], a.block, a.kv_heads, kv_head, a.width);
  for (uint i = lane; i < (is_query ? a.dim : a.width); i += WAVE) {
    float v = 0;
    if (i < a.dim) {
      v = normed ? x[i] * (scale * weight[i]) : x[i];
      if (i < 2 * turned) {
        const uint pair = i < turned ? i : i - turned, other = i < turned ? i + turned : i - turned;
        const float w = normed ? x[other] * (scale * weight[other]) : x[other];
        const float c = cosines[(ulong)row * a.pairs + pair], s = sines[(ulong)row * a.pairs + pair];
        v = i < turned ? v * c - w * s : w * s + v * c;
      }
    }
    if (is_query) q[at + i] = v;
    else if (is_value) put<TYPE>(values + at + i, v);
    else put<TYPE>(keys + at + i, v);
  }
}

struct Copy { uint kv_heads, block, width; };

// The first tokens of blocks of keys (0 in z) and of values, a threadgroup for each head: copies[3 i] is where they are,
// copies[3 i + 1] where they go, and copies[3 i + 2] how many.
KERNEL(128) copy_blocks(device Stored *keys [[buffer(0)]], device Stored *values [[buffer(1)]],
                        device const uint *copies [[buffer(2)]], constant Copy &a [[buffer(3)]], PLACE) {
  device Stored *all = group.z ? values : keys;
  device const uint *copy = copies + 3 * group.x;
  const ulong head = (ulong)a.block * a.width;
  device const Stored *from = all + ((ulong)copy[0] * a.kv_heads + group.y) * head;
  device Stored *to = all + ((ulong)copy[1] * a.kv_heads + group.y) * head;
  for (uint i = wave * WAVE + lane; i < copy[2] * a.width; i += 128) to[i] = from[i];
}
