// y[r, c] = activated(x[r, c]) * x[r, n + c]
KERNEL(256) gate(float *y, const float *x, u32 rows, u32 n, int activation) {
  u64 i = (u64)BID_X * 256 + TID;
  if (i >= (u64)rows * n) return;
  u64 at = i / n * 2 * n + i % n;
  y[i] = activated(x[at], activation) * x[at + n];
}
