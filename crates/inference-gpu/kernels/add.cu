// x += y
KERNEL(256) add(float *x, const float *y, u32 n) {
  u32 i = BID_X * 256 + TID;
  if (i < n) x[i] += y[i];
}
