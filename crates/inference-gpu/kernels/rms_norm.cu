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
