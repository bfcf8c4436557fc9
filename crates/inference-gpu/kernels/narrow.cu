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
