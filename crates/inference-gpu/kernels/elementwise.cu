// Norms, gates, sums, and rows that are copied. Activations are f32.

// h = x / sqrt(mean(x^2) + eps) * weight for each group of n columns; with y, x += y before. A block for each group.
KERNEL(256) rms_norm(float *x, const float *y, const float *weight, float *h, u32 n, float eps, u32 waves) {
  SHARED float part[256 / WAVE];
  u64 at = (u64)BID_X * n;
  float square = 0;
  for (u32 i = TID; i < n; i += waves * WAVE) {
    float v = x[at + i];
    if (y) x[at + i] = v += y[at + i];
    square += v * v;
  }
  square = block_sum(square, part, waves);
  float scale = rsqrt_f(square / (float)n + eps);
  for (u32 i = TID; i < n; i += waves * WAVE) h[at + i] = x[at + i] * (scale * weight[i]);
}

// y[r, c] = activated(x[r, c]) * x[r, n + c]
KERNEL(256) gate(float *y, const float *x, u32 rows, u32 n, int activation) {
  u64 i = (u64)BID_X * 256 + TID;
  if (i >= (u64)rows * n) return;
  u64 at = i / n * 2 * n + i % n;
  y[i] = activated(x[at], activation) * x[at + n];
}

KERNEL(256) add(float *x, const float *y, u32 n) {
  u32 i = BID_X * 256 + TID;
  if (i < n) x[i] += y[i];
}

KERNEL(256) softcap(float *x, u32 n, float cap) {
  u32 i = BID_X * 256 + TID;
  if (i < n) x[i] = cap * tanh_f(x[i] / cap);
}

// how 0: y[r] = x[index[r]]; 1: y[r, c] = x[r, index[c]]; 2: y[r, index[c]] = x[r, c]
KERNEL(256) gather(float *y, const float *x, const u32 *index, u32 rows, u32 cols, u32 how) {
  u64 i = (u64)BID_X * 256 + TID;
  if (i >= (u64)rows * cols) return;
  u64 r = i / cols, c = i % cols;
  if (how == 2) y[r * cols + index[c]] = x[i];
  else y[i] = how == 1 ? x[r * cols + index[c]] : x[index[r] * (u64)cols + c];
}

// The first tokens of blocks of keys and of values, each [kv_heads, block, width], `head` words of a head and `row` words of a
// token: copies[3 i] is where they are, copies[3 i + 1] where they go, and copies[3 i + 2] how many tokens there are.
KERNEL(256) copy_blocks(u32 *keys, u32 *values, const u32 *copies, u32 count, u32 kv_heads, u32 head, u32 row) {
  u64 i = (u64)BID_X * 256 + TID;
  u64 block = (u64)kv_heads * head;
  if (i >= count * block) return;
  const u32 *copy = copies + i / block * 3;
  u64 at = i % block;
  if (at % head >= copy[2] * row) return;
  keys[copy[1] * block + at] = keys[copy[0] * block + at];
  values[copy[1] * block + at] = values[copy[0] * block + at];
}

// y = x in 16 bits for products of matrices, `stride` columns of which those from n on are 0. A row of f16 is divided by
// scale[r], a power of two, so that its largest number is at most 2^15: activations may be larger than f16 can be.
KERNEL(256) narrow(u16 *y, float *scale, const float *x, u32 n, u32 stride, int type) {
  SHARED float part[256 / WAVE];
  const float *row = x + (u64)BID_X * n;
  float inverse = 1;
  if (type == F16) {
    float most = 0;
    for (u32 i = TID; i < n; i += 256) most = max_f(most, row[i] < 0 ? -row[i] : row[i]);
    most = wave_max(most);
    if (TID % WAVE == 0) part[TID / WAVE] = most;
    sync_block();
    for (u32 w = 0; w < 256 / WAVE; w++) most = max_f(most, part[w]);
    // 2^(14 - e) for most = 1.… · 2^e; what is tiny, or none at all, stays as it is.
    u32 e = f_bits(most) >> 23;
    if (e > 30 && e < 254) inverse = bits_f((268u - e) << 23);
  }
  if (TID == 0) scale[BID_X] = 1.0f / inverse;
  for (u32 i = TID; i < stride; i += 256) {
    float v = i < n ? row[i] * inverse : 0.0f;
    y[(u64)BID_X * stride + i] = type == F16 ? f2h(v) : f2b(v);
  }
}
